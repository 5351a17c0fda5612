package smtpd_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/smtp"

	"github.com/postroom/postroom/smtpd"
)

// policy is a whole server built from the hooks: it takes mail for one address and prints it.
type policy struct{}

func (policy) Connect(context.Context, *smtpd.Client) (smtpd.Session, error) { return policy{}, nil }

func (policy) Hello(context.Context) error { return nil }

func (policy) Mail(context.Context, smtpd.Mail) (smtpd.Transaction, error) { return policy{}, nil }

func (policy) Rcpt(_ context.Context, r smtpd.Rcpt) error {
	if r.To.Address.String() != "anna@example.org" {
		return smtpd.Refuse(550, 1, 1, "only anna gets mail here")
	}
	return nil
}

func (policy) Data(_ context.Context, body io.Reader) (smtpd.Reply, error) {
	message, err := io.ReadAll(body)
	if err != nil {
		return smtpd.Reply{}, err // the engine knows what to say
	}
	fmt.Printf("%q\n", message)
	return smtpd.NewReply(250, 0, 0, "printed"), nil
}

func (policy) Close() {}

// A small server: what it accepts is decided by the hooks, what a message is by the engine.
func Example() {
	server := &smtpd.Server{Hostname: "mail.example.org", Handler: policy{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	go server.Serve(l)
	defer server.Close()

	send := func(to string) error {
		return smtp.SendMail(l.Addr().String(), nil, "ben@example.net", []string{to}, []byte("Subject: hello\r\n\r\nIt works.\r\n"))
	}
	fmt.Println(send("anna@example.org"))
	fmt.Println(send("nobody@example.org"))
	// Output:
	// "Subject: hello\r\n\r\nIt works.\r\n"
	// <nil>
	// 550 "5.1.1 only anna gets mail here"
}
