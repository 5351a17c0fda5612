package dkim

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"fmt"
	"io"
	"strings"

	library "github.com/emersion/go-msgauth/dkim"

	"github.com/postroom/postroom/internal/message"
)

// SigningKey is a private key and where its public one is.
type SigningKey struct {
	Domain   string // d=, in A-labels
	Selector string // s=
	Key      crypto.Signer
}

// oversigned are the fields whose absence is signed too, so that nobody can add one: RFC 6376 section 8.15. The rest of
// signedFields is signed where it is there, once for each time.
var (
	oversigned = []string{"From", "Sender", "Reply-To", "To", "Cc", "Subject", "Date", "Message-ID", "In-Reply-To", "References",
		"MIME-Version", "Content-Type", "Content-Transfer-Encoding"}
	signedFields = []string{"Content-Disposition", "Content-ID", "Content-Description", "Resent-Date", "Resent-From", "Resent-To",
		"Resent-Cc", "Resent-Sender", "Resent-Message-ID", "List-Id", "List-Help", "List-Unsubscribe", "List-Unsubscribe-Post",
		"List-Subscribe", "List-Post", "List-Owner", "List-Archive", "Auto-Submitted", "TLS-Required"}
)

// Sign reads a letter once and returns a DKIM-Signature field for each key, with CR LF, in the order of the keys: RFC 6376
// with relaxed canonical forms, RFC 8463 for Ed25519. header is that of the letter.
func Sign(letter io.Reader, header *message.Header, keys ...SigningKey) ([]byte, error) {
	names := namesToSign(header)
	signers := make([]*library.Signer, len(keys))
	writers := make([]io.Writer, len(keys))
	for i, k := range keys {
		var err error
		signers[i], err = library.NewSigner(&library.SignOptions{
			Domain: k.Domain, Selector: k.Selector, Signer: k.Key, Hash: crypto.SHA256, HeaderKeys: names,
			HeaderCanonicalization: library.CanonicalizationRelaxed, BodyCanonicalization: library.CanonicalizationRelaxed,
		})
		if err != nil {
			closeAll(signers[:i])
			return nil, fmt.Errorf("dkim: sign for %s: %w", k.Domain, err)
		}
		writers[i] = signers[i]
	}
	_, err := io.Copy(io.MultiWriter(writers...), struct{ io.Reader }{letter})
	if closing := closeAll(signers); err == nil {
		err = closing
	}
	if err != nil {
		return nil, fmt.Errorf("dkim: sign: %w", err)
	}
	var fields bytes.Buffer
	for _, s := range signers {
		fields.WriteString(s.Signature())
	}
	return fields.Bytes(), nil
}

// closeAll ends all signers, each of which has a goroutine.
func closeAll(signers []*library.Signer) (err error) {
	for _, s := range signers {
		if e := s.Close(); err == nil {
			err = e
		}
	}
	return err
}

// namesToSign lists h=: each field as often as it is there, the most important ones once more.
func namesToSign(h *message.Header) (names []string) {
	for _, name := range oversigned {
		for range h.Count(name) + 1 {
			names = append(names, name)
		}
	}
	for _, name := range signedFields {
		for range min(h.Count(name), 20) {
			names = append(names, name)
		}
	}
	return names
}

// Algorithm is what a key signs with, as in a=.
func (k SigningKey) Algorithm() string {
	if _, ok := k.Key.Public().(ed25519.PublicKey); ok {
		return "ed25519-sha256"
	}
	return "rsa-sha256"
}

// Record is the TXT record that publishes a public key: RFC 6376 section 3.6.1. public is base64, as in p=.
func Record(algorithm, public string) string {
	kind, _, _ := strings.Cut(algorithm, "-")
	return "v=DKIM1; k=" + kind + "; p=" + public
}
