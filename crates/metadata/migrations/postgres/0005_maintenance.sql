-- Maintenance mode: why this site takes no writes for the time being; null when it takes them.
ALTER TABLE site ADD COLUMN maintenance TEXT;
