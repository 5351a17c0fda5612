// Package resolve is the only door to the DNS: a caching stub resolver that asks one or several recursive resolvers.
//
// It keeps four outcomes apart, since much depends on which one it is: the name does not exist, the name has no such record,
// the servers failed, and nobody answered in time. The first two are facts; the others are temporary, and nobody may take them
// for facts. It believes what a resolver says about DNSSEC (the AD bit) only where it was told to.
//
// It does no recursion and validates no signature. RFCs: 1034, 1035, 2308 (negative answers), 6891 (EDNS), 5966 (TCP),
// 6840 section 5.7 (AD in queries).
package resolve
