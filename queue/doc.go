// Package queue keeps letters that are on their way out until each recipient's fate is known: durable rows, a schedule,
// bounded workers that are fair to all destinations, and the notices to senders (RFC 3461, 3464, 6533). It speaks no protocol
// and knows no mailbox: it calls the Deliverer, the Store and the Signer that it is given.
package queue
