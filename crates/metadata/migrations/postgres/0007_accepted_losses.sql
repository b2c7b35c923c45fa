-- How often an operator has accepted that the database lost acknowledged writes: a node that remembers some, and was off at that
-- time, knows by it that they were given up.
ALTER TABLE site ADD COLUMN accepted_losses BIGINT NOT NULL DEFAULT 0;
