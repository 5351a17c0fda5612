-- Messages at rest; package mailbox says how they are used.

-- +goose Up
CREATE TABLE mailboxes (
    id          INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again
    account_id  BIGINT NOT NULL,
    name        TEXT   NOT NULL,
    uidvalidity BIGINT NOT NULL,
    uidnext     BIGINT NOT NULL DEFAULT 1,
    modseq      BIGINT NOT NULL DEFAULT 0,
    messages    BIGINT NOT NULL DEFAULT 0,
    octets      BIGINT NOT NULL DEFAULT 0,
    UNIQUE (account_id, name)
);

-- A letter in a mailbox: prefix, then the body with the mark put in at mark_at. size counts all three.
CREATE TABLE messages (
    mailbox_id BIGINT NOT NULL REFERENCES mailboxes (id),
    uid        BIGINT NOT NULL,
    blob_id    BIGINT NOT NULL,
    size       BIGINT NOT NULL,
    flags      BIGINT NOT NULL,
    received   BIGINT NOT NULL, -- UTC milliseconds
    modseq     BIGINT NOT NULL,
    uidl       BLOB   NOT NULL, -- 16 random octets
    prefix     BLOB   NOT NULL,
    mark_at    BIGINT NOT NULL,
    mark       BLOB   NOT NULL,
    PRIMARY KEY (mailbox_id, uid)
) WITHOUT ROWID;

-- What was deleted, for mail programs that resynchronise. The UIDs of a row are those from first to last.
CREATE TABLE tombstones (
    mailbox_id BIGINT NOT NULL REFERENCES mailboxes (id),
    modseq     BIGINT NOT NULL,
    first      BIGINT NOT NULL,
    last       BIGINT NOT NULL,
    PRIMARY KEY (mailbox_id, modseq, first)
) WITHOUT ROWID;

-- A body, stored once. refs counts the messages that have it; 0 and less are named in package mailbox.
CREATE TABLE blobs (
    id      INTEGER PRIMARY KEY,
    message TEXT   NOT NULL,
    size    BIGINT NOT NULL,
    refs    BIGINT NOT NULL,
    enc     BIGINT NOT NULL DEFAULT 0 -- 0: as it came
);
CREATE INDEX blobs_unreferenced ON blobs (refs, id) WHERE refs <= 0;

-- 64 KiB of a body each; id = blob id * 65536 + position.
CREATE TABLE chunks (
    id   INTEGER PRIMARY KEY,
    data BLOB NOT NULL
);
