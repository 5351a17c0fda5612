-- Letters on their way out; package queue says how it is used.

-- +goose Up
CREATE TABLE queue_letters (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    message      TEXT   NOT NULL,
    account_id   BIGINT NOT NULL, -- whose login handed it in; 0: a notice of our own
    reverse_path TEXT   NOT NULL,
    size         BIGINT NOT NULL,
    flags        BIGINT NOT NULL,
    ret          TEXT   NOT NULL,
    envid        TEXT   NOT NULL,
    blob_id      BIGINT NOT NULL,
    created      BIGINT NOT NULL, -- UTC milliseconds, like all times
    pending      BIGINT NOT NULL  -- recipients that are left
);
CREATE INDEX queue_letters_account ON queue_letters (account_id);

CREATE TABLE queue_recipients (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    letter_id   BIGINT NOT NULL REFERENCES queue_letters (id),
    recipient   TEXT   NOT NULL,
    domain      TEXT   NOT NULL, -- A-labels
    notify      TEXT   NOT NULL,
    original    TEXT   NOT NULL,
    state       BIGINT NOT NULL, -- 0 waits for its time, 1 held by the operator, 2 held with its account, 3 set aside
    attempts    BIGINT NOT NULL,
    next        BIGINT NOT NULL,
    delay_told  BIGINT NOT NULL, -- 1: the sender knows that it is late
    reason      TEXT   NOT NULL  -- why it was set aside
);
CREATE INDEX queue_recipients_due ON queue_recipients (state, domain, next);
CREATE INDEX queue_recipients_next ON queue_recipients (next) WHERE state = 0;
CREATE INDEX queue_recipients_letter ON queue_recipients (letter_id);

-- Each try, for as long as its recipient is in the queue; n counts from 1.
CREATE TABLE queue_attempts (
    recipient_id BIGINT NOT NULL,
    n            BIGINT NOT NULL,
    at           BIGINT NOT NULL,
    reply        TEXT   NOT NULL,
    enhanced     TEXT   NOT NULL,
    remote       BIGINT NOT NULL, -- 1: the reply is the other side's
    host         TEXT   NOT NULL,
    address      TEXT   NOT NULL,
    tls          TEXT   NOT NULL,
    policy       TEXT   NOT NULL,
    unclear      BIGINT NOT NULL, -- 1: the connection was lost after the final dot
    PRIMARY KEY (recipient_id, n)
) WITHOUT ROWID;
