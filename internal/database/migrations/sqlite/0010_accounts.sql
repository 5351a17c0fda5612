-- Who exists and who may log in; package accounts says how it is used. A key is an address as it is looked up.

-- +goose Up
CREATE TABLE domains (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    name      TEXT   NOT NULL UNIQUE, -- A-labels, lower case
    catch_all TEXT   NOT NULL,        -- an address of ours, or empty
    separator TEXT   NOT NULL,        -- of plus-addressing, or empty
    created   BIGINT NOT NULL
);

-- An account that was removed has no key, and its mail is kept until removed + 30 days.
CREATE TABLE accounts (
    id         INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again
    domain_id  BIGINT NOT NULL,
    address    TEXT   NOT NULL, -- as it was written
    key        TEXT   UNIQUE,
    name       TEXT   NOT NULL,
    quota      BIGINT NOT NULL, -- octets; 0: none
    disabled   BIGINT NOT NULL, -- 1: may not log in
    salt       BLOB   NOT NULL, -- of SCRAM, for life
    iterations BIGINT NOT NULL,
    created    BIGINT NOT NULL, -- UTC milliseconds, like all times
    removed    BIGINT NOT NULL  -- 0: it was not
);
CREATE INDEX accounts_domain ON accounts (domain_id, id);

-- The account's own password has an empty name; the others are device passwords.
CREATE TABLE credentials (
    id         INTEGER PRIMARY KEY AUTOINCREMENT, -- a new password is a new row, so that an id stands for one password
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    name       TEXT   NOT NULL,
    tag        TEXT   UNIQUE, -- the public part of a device password
    uses       BIGINT NOT NULL, -- 1 receive, 2 send, 3 both
    hash       TEXT   NOT NULL, -- bcrypt
    stored_key BLOB   NOT NULL, -- RFC 5802
    server_key BLOB   NOT NULL,
    created    BIGINT NOT NULL,
    used       BIGINT NOT NULL, -- to the hour
    network    TEXT   NOT NULL, -- where it was used last
    UNIQUE (account_id, name)
);

CREATE TABLE aliases (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    domain_id BIGINT NOT NULL,
    address   TEXT   NOT NULL,
    key       TEXT   NOT NULL UNIQUE
);

CREATE TABLE alias_targets (
    alias_id BIGINT NOT NULL REFERENCES aliases (id),
    address  TEXT   NOT NULL,
    key      TEXT   NOT NULL,
    PRIMARY KEY (alias_id, key)
) WITHOUT ROWID;
CREATE INDEX alias_targets_key ON alias_targets (key);

-- Networks that an account has logged in from: strangers' failures elsewhere do not slow them down.
CREATE TABLE known_networks (
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    network    TEXT   NOT NULL,
    seen       BIGINT NOT NULL,
    PRIMARY KEY (account_id, network)
) WITHOUT ROWID;

-- A secret that makes up salts for accounts that do not exist.
CREATE TABLE account_secrets (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;
