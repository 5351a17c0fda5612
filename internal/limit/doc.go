// Package limit bounds what peers can take of us: connections in all, per listener group, per network and per account;
// events per key and time; and how slowly a body may arrive. All state is in memory, bounded, and gone with the process.
// Everything is O(1) per call and safe for concurrent use, except Throughput, which belongs to one session.
//
// It decides nothing but "too many" or "too slow": what the peer is told, and what is logged, is the caller's. Reading from
// and writing to connections, and their deadlines, are the engines'.
package limit
