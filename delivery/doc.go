// Package delivery hands letters to other servers: it finds the hosts of a domain or the smarthost that stands in for them,
// decides how well a connection must be protected, and speaks SMTP as a client. It keeps no letter and no schedule: package
// queue calls it for each attempt, and it says for each recipient how that ended.
//
// What it decides, it decides in pure functions: the order of hosts (route.go), the protection that a connection needs and
// what follows when it fails (policy.go), whether a cached MTA-STS policy is used and fetched again (sts.go).
//
// RFCs: 5321 and its extensions 1870, 2920, 3030, 3207, 3461, 4954, 6152, 6531, 9422; 7505 (null MX), 7672 (DANE), 8461
// (MTA-STS), 8689 (REQUIRETLS), 7435 (opportunistic TLS).
package delivery
