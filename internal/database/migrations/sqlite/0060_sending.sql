-- What accounts and their domains need for sending; package accounts says how it is used.

-- +goose Up
CREATE TABLE dkim_keys (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    domain_id BIGINT NOT NULL,
    selector  TEXT   NOT NULL,
    algorithm TEXT   NOT NULL, -- as in a= of a signature
    private   BLOB   NOT NULL, -- PKCS #8, sealed
    public    TEXT   NOT NULL, -- as in p= of a key record
    state     BIGINT NOT NULL, -- 1 new, 2 active, 3 retired
    created   BIGINT NOT NULL,
    changed   BIGINT NOT NULL, -- when it got its state
    UNIQUE (domain_id, selector)
);

-- Addresses that an account may send as, besides those that deliver to it.
CREATE TABLE grants (
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    key        TEXT   NOT NULL,
    address    TEXT   NOT NULL,
    PRIMARY KEY (account_id, key)
) WITHOUT ROWID;

-- How much an account sent in each hour, for two days.
CREATE TABLE sent_hours (
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    hour       BIGINT NOT NULL, -- since 1970
    recipients BIGINT NOT NULL,
    strangers  BIGINT NOT NULL, -- of these, written to for the first time
    PRIMARY KEY (account_id, hour)
) WITHOUT ROWID;

-- Whom an account has written to: a hash of the address each.
CREATE TABLE correspondents (
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    hash       BLOB   NOT NULL,
    PRIMARY KEY (account_id, hash)
) WITHOUT ROWID;

-- Accounts that send suspiciously much: nothing more is taken from them until an operator has looked.
CREATE TABLE sending_holds (
    account_id BIGINT NOT NULL PRIMARY KEY REFERENCES accounts (id),
    since      BIGINT NOT NULL,
    reason     TEXT   NOT NULL
) WITHOUT ROWID;
