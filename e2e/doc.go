// Package e2e runs the real postroom binary against real mail programs. It holds tests only.
//
// A test that needs a program (swaks, curl, mpop, fetchmail, python3, postfix) skips and names it where it is missing. TestPostfix
// makes network namespaces, which takes Linux and root. Three environment variables make the long tests longer than a change
// needs:
//
//	POSTROOM_E2E_KILLS     how many times the crash test kills the server (default 5)
//	POSTROOM_E2E_MAILDROP  how many letters the big maildrop holds (default 5000)
//	POSTROOM_E2E_PARALLEL  how many 25 MB letters arrive at once (default 10)
package e2e
