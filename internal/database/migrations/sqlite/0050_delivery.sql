-- How letters leave; package delivery says how it is used.

-- +goose Up
-- Smarthosts: for a sender's domain, for a destination, or, where both are empty, for all mail.
CREATE TABLE relays (
    id          INTEGER PRIMARY KEY AUTOINCREMENT, -- a change is a new row, so that an id stands for one login
    sender      TEXT   NOT NULL,
    destination TEXT   NOT NULL,
    host        TEXT   NOT NULL,
    port        BIGINT NOT NULL,
    tls         TEXT   NOT NULL, -- starttls or tls
    login       BLOB,            -- name, NUL, password, sealed; NULL: none
    UNIQUE (sender, destination)
);

-- The MTA-STS policies of domains that were written to (RFC 8461), and where there is none, when fetching it failed.
CREATE TABLE mta_sts (
    domain  TEXT   NOT NULL PRIMARY KEY,
    id      TEXT   NOT NULL, -- of the record that the policy was fetched for
    policy  BLOB   NOT NULL, -- as it was fetched, or empty
    fetched BIGINT NOT NULL, -- UTC milliseconds, like all times; 0: never
    expires BIGINT NOT NULL,
    failed  BIGINT NOT NULL  -- when fetching failed last; 0: it did not
) WITHOUT ROWID;
