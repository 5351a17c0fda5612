// Command postroom is the mail server, and the tool to run it with: one binary, one command line.
//
// It holds wiring only: it reads the configuration, opens the database, and joins the engines (smtpd, pop3d), the
// stories (inbound, retrieval) and the stores (accounts, mailbox). What a letter meets is decided in those packages.
//
// Every command works on the same database, whether the server runs or not; the server notices what changed. Exit
// status: 0 done, 1 no, 2 could not tell, 64 wrong usage, 78 wrong configuration (the last two as in sysexits.h).
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	p := &program{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	os.Exit(p.run(ctx, os.Args[1:]))
}
