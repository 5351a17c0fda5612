-- The mode of the MTA-STS policy that is served for a domain: none, testing or enforce.

-- +goose Up
ALTER TABLE domains ADD COLUMN mta_sts TEXT NOT NULL DEFAULT 'testing';
