package resolve

import (
	"container/list"
	"time"
)

// cache keeps outcomes until they expire, and no more than fit: the one that was not asked for longest goes first.
type cache struct {
	entries   map[key]*list.Element
	order     *list.List // of *entry, newest use first
	octets    int
	maxCount  int
	maxOctets int
}

type entry struct {
	key     key
	outcome outcome
}

// entryOctets is about what an entry costs beside its records.
const entryOctets = 400

func (c *cache) limit(count, octets int) {
	c.entries, c.order = map[key]*list.Element{}, list.New()
	c.maxCount, c.maxOctets = count, octets
}

func (c *cache) get(k key) (outcome, bool) {
	e, ok := c.entries[k]
	if !ok {
		return outcome{}, false
	}
	kept := e.Value.(*entry)
	if !time.Now().Before(kept.outcome.expires) {
		c.drop(e)
		return outcome{}, false
	}
	c.order.MoveToFront(e)
	return kept.outcome, true
}

func (c *cache) put(k key, o outcome) {
	if e, ok := c.entries[k]; ok {
		c.drop(e)
	}
	if !time.Now().Before(o.expires) {
		return
	}
	c.entries[k] = c.order.PushFront(&entry{k, o})
	c.octets += o.octets + entryOctets
	for c.order.Len() > c.maxCount || c.octets > c.maxOctets {
		c.drop(c.order.Back())
	}
}

func (c *cache) drop(e *list.Element) {
	kept := c.order.Remove(e).(*entry)
	delete(c.entries, kept.key)
	c.octets -= kept.outcome.octets + entryOctets
}
