-- PostgreSQL keeps every table apart from its keys, so there is nothing to rebuild: see SQLite's change of this number. There as
-- here, who links a digest is read in the order of the index, however many do.

DROP INDEX blob_links_by_digest;
CREATE INDEX blob_links_by_digest ON blob_links (digest, repository_id);
