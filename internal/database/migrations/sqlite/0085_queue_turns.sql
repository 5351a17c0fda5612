-- Letters of one sender's domain to one domain have one destination: these pairs take turns, so that a smarthost of one sender that is
-- down does not stand before another sender's letters. Rows from before are of no sender's domain, which only groups them.

-- +goose Up
ALTER TABLE queue_recipients ADD COLUMN sender TEXT NOT NULL DEFAULT ''; -- domain of the reverse-path, A-labels
DROP INDEX queue_recipients_due;
CREATE INDEX queue_recipients_due ON queue_recipients (state, domain, sender, next);
-- The next time at which a recipient is due is found by state and time; the old index lost to queue_recipients_due, all of which was read.
DROP INDEX queue_recipients_next;
CREATE INDEX queue_recipients_next ON queue_recipients (state, next);
