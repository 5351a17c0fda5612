package dkim

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/postroom/postroom/internal/message"
)

// TestSign signs with a pair of keys, and shows which changes on the way both signatures survive.
func TestSign(t *testing.T) {
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := []SigningKey{{"good.example", "r", rsaKey}, {"good.example", "e", private}}
	records := map[string]string{
		"r._domainkey.good.example": Record(keys[0].Algorithm(), base64.StdEncoding.EncodeToString(must(x509.MarshalPKIXPublicKey(&rsaKey.PublicKey)))),
		"e._domainkey.good.example": Record(keys[1].Algorithm(), base64.StdEncoding.EncodeToString(public)),
	}
	const letter = "From: a@good.example\r\nTo: b@there.example\r\nSubject: hello\r\nList-Unsubscribe: <https://good.example/u>\r\n\r\nHello.\r\n"
	fields := must(Sign(strings.NewReader(letter), must(message.ReadHeader(strings.NewReader(letter), message.HeaderLimits{})), keys...))
	signed := string(fields) + letter
	for _, tc := range []struct{ name, letter, want string }{
		{"as it was signed", signed, "pass pass"},
		{"behind trace fields", "Received: x\r\n" + signed, "pass pass"},
		{"with blanks added", strings.Replace(signed, "Subject: hello", "subject:   hello ", 1), "pass pass"},
		{"with another subject", strings.Replace(signed, "Subject: hello", "Subject: bye", 1), "fail fail"},
		{"with a second From", "From: evil@evil.example\r\n" + signed, "fail fail"},
		{"with a Reply-To that was not there", "Reply-To: evil@evil.example\r\n" + signed, "fail fail"},
		{"with another way to unsubscribe", strings.Replace(signed, "good.example/u", "evil.example/u", 1), "fail fail"},
		{"with another body", signed + "More.\r\n", "fail fail"},
	} {
		header := must(message.ReadHeader(strings.NewReader(tc.letter), message.HeaderLimits{}))
		results := Verify(t.Context(), Letter{strings.NewReader(tc.letter), int64(len(tc.letter)), header}, Options{
			TXT: func(_ context.Context, name string) ([]string, error) { return []string{records[name]}, nil }})
		if got := statuses(results); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

// failing cannot be read.
type failing struct{}

var errFailing = errors.New("the disk is broken")

func (failing) Read([]byte) (int, error) { return 0, errFailing }

// TestSignFails shows that a letter that cannot be read, or has no author, is not signed.
func TestSignFails(t *testing.T) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := SigningKey{"good.example", "e", private}
	empty := must(message.ReadHeader(bytes.NewReader(nil), message.HeaderLimits{}))
	if _, err := Sign(failing{}, empty, key, key); !errors.Is(err, errFailing) {
		t.Errorf("unreadable: %v", err)
	}
	if _, err := Sign(strings.NewReader("Subject: x\r\n\r\n"), empty, key, SigningKey{Selector: "e", Key: private}); err == nil {
		t.Error("a key of no domain")
	}
}
