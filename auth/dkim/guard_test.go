package dkim

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	library "github.com/emersion/go-msgauth/dkim"

	"github.com/postroom/postroom/internal/message"
)

// maxCPU is what one hostile letter may cost.
const maxCPU = 2 * time.Second * raceFactor

// cpu is the processor time that this process has used.
func cpu(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

const ed25519Key = "v=DKIM1; k=ed25519; p="

// signed signs a letter with a fresh Ed25519 key, simple body, and returns the key record.
func signed(t testing.TB, letter []byte, header, body library.Canonicalization) (octets []byte, record string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = library.Sign(&out, bytes.NewReader(letter), &library.SignOptions{
		Domain: "evil.example", Selector: "s", Signer: private, HeaderCanonicalization: header, BodyCanonicalization: body,
		HeaderKeys: []string{"From", "From", "Subject"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), ed25519Key + base64.StdEncoding.EncodeToString(public)
}

const top = "From: a@evil.example\r\nSubject: x\r\n"

// forge makes a signature field that is well-formed, with a true body hash and a wrong signature.
func forge(selector string, names int, body []byte, canonical string) string {
	sum := sha256.Sum256(body)
	return fmt.Sprintf("DKIM-Signature: v=1; a=ed25519-sha256; c=%s; d=evil.example; s=%s; h=From%s;\r\n bh=%s; b=%s\r\n",
		canonical, selector, strings.Repeat(":\r\n From", names-1), base64.StdEncoding.EncodeToString(sum[:]), strings.Repeat("A", 86)+"==")
}

// TestHostileLetters has the letters that cost the library minutes, gigabytes or goroutines: each is bounded here.
func TestHostileLetters(t *testing.T) {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := ed25519Key + base64.StdEncoding.EncodeToString(public)
	emptyLines := bytes.Repeat([]byte("\r\n"), 4<<20)
	big := bytes.Repeat([]byte("A line of a very large letter, of which there are many.\r\n"), 50<<20/57)
	for _, tc := range []struct {
		name   string
		letter []byte
		want   string // the first statuses
		looks  int    // at most so many look-ups
	}{
		{"8 MB of empty lines, simple", append([]byte(forge("s", 1, []byte("x\r\n"), "simple/simple")+top+"\r\nx"), emptyLines...), "fail", 1},
		{"8 MB of empty lines, relaxed", append([]byte(forge("s", 1, []byte("x\r\n"), "relaxed/relaxed")+top+"\r\nx"), emptyLines...), "fail", 1},
		{"many runs of empty lines", append([]byte(forge("s", 1, nil, "simple/simple")+top+"\r\n"),
			bytes.Repeat(append(bytes.Repeat([]byte("\r\n"), 32<<10), 'x'), 100)...), "fail", 1},
		{"16,000 names in h=", []byte(forge("s", 16000, []byte("\r\n"), "simple/simple") + top + "\r\n"), "policy", 0},
		{"200 names in h= and 1,900 From fields, 8 times", []byte(strings.Repeat(forge("s", 199, nil, "relaxed/relaxed"), 8) + strings.Repeat("From: a@evil.example\r\n", 1900) + "\r\n"), "fail", 8},
		{"1,000 signatures", []byte(strings.Repeat(forge("s", 1, []byte("\r\n"), "simple/simple"), 1000) + top + "\r\n"), "fail fail fail fail fail fail fail fail neutral", 8},
		{"50 MB, 8 signatures", append([]byte(strings.Repeat(forge("s", 1, nil, "relaxed/relaxed")+forge("s", 1, nil, "simple/simple"), 4)+top+"\r\n"), big...),
			"fail fail fail fail fail fail fail fail", 8},
		{"a key record of 64 KB", []byte(forge("long", 1, []byte("\r\n"), "simple/simple") + top + "\r\n"), "permerror", 1},
		{"100 key records", []byte(forge("many", 1, []byte("\r\n"), "simple/simple") + top + "\r\n"), "permerror", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { verifyHostile(t, good, tc.letter, tc.want, tc.looks) }) // a slow machine must not meet the budget
		})
	}
}

func verifyHostile(t *testing.T, good string, letter []byte, want string, looksAtMost int) {
	t.Helper()
	var looks atomic.Int64
	header, err := message.ReadHeader(bytes.NewReader(letter), message.HeaderLimits{Octets: 1 << 20, Fields: 2000})
	if err != nil {
		t.Fatal(err)
	}
	before := cpu(t)
	results := Verify(t.Context(), Letter{bytes.NewReader(letter), int64(len(letter)), header}, Options{
		TXT: func(_ context.Context, name string) ([]string, error) {
			looks.Add(1)
			switch {
			case strings.HasPrefix(name, "long."):
				return []string{good + strings.Repeat(" ", 64<<10)}, nil
			case strings.HasPrefix(name, "many."):
				return make([]string, 100), nil
			}
			return []string{good}, nil
		}})
	used := cpu(t) - before
	if got := statuses(results); !strings.HasPrefix(got, want) || len(results) > maxParsed {
		t.Errorf("%.100s, want %s", got, want)
	}
	if used > maxCPU || looks.Load() > int64(looksAtMost) {
		t.Errorf("%v of CPU, %d look-ups; at most %v, %d", used, looks.Load(), maxCPU, looksAtMost)
	}
	t.Logf("%v of CPU, %d results, %d look-ups", used, len(results), looks.Load())
}

// TestKeySizes shows which RSA keys count: RFC 8301 section 3.2.
func TestKeySizes(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	for _, tc := range []struct {
		bits int
		want Status
	}{{512, Policy}, {1024, Pass}, {2048, Pass}, {4096, Pass}, {16384, Policy}} {
		t.Run(fmt.Sprint(tc.bits), func(t *testing.T) {
			s := Signature{Algorithm: "rsa-sha256", Domain: "a.example", Identity: "@a.example"}
			der := rsaKey(t, tc.bits)
			_, err := parseKey("k=rsa; p="+base64.StdEncoding.EncodeToString(der), s, nil)
			if u, ok := errors.AsType[*unfit](err); (tc.want == Pass) != (err == nil) || ok && u.status != tc.want {
				t.Errorf("%v, want %s", err, tc.want)
			}
		})
	}
}

// rsaKey is a public key of that size; a large one is made up, since making a true one takes minutes.
func rsaKey(t *testing.T, bits int) []byte {
	t.Helper()
	key := &rsa.PublicKey{E: 65537}
	if bits <= 4096 {
		private, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		key = &private.PublicKey
	} else {
		octets := bytes.Repeat([]byte{0xff}, bits/8)
		private, err := rsa.GenerateKey(rand.Reader, 1024)
		if err != nil {
			t.Fatal(err)
		}
		key.N = private.N.SetBytes(octets)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestSlowDNS shows that look-ups that hang end with the budget, as a temporary error.
func TestSlowDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		letter := []byte(forge("s", 1, []byte("\r\n"), "simple/simple") + top + "\r\n")
		header := must(message.ReadHeader(bytes.NewReader(letter), message.HeaderLimits{}))
		start := time.Now()
		results := Verify(t.Context(), Letter{bytes.NewReader(letter), int64(len(letter)), header}, Options{
			TXT: func(ctx context.Context, _ string) ([]string, error) { <-ctx.Done(); return nil, ctx.Err() }})
		if took := time.Since(start); took > budget || statuses(results) != "temperror" {
			t.Errorf("%s after %v", statuses(results), took)
		}
	})
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// brokenReader fails in the middle of the body.
type brokenReader struct {
	*bytes.Reader
	from int64
}

func (b brokenReader) ReadAt(p []byte, at int64) (int, error) {
	if at >= b.from {
		return 0, io.ErrUnexpectedEOF
	}
	return b.Reader.ReadAt(p, at)
}

// TestAborted shows that letters that cannot be read to the end are neither verified nor failed, and leave nothing behind: with a
// goroutine that goes on, the bubble would not end.
func TestAborted(t *testing.T) {
	letter := append([]byte(strings.Repeat(forge("s", 1, nil, "relaxed/relaxed"), 3)+top+"\r\n"), bytes.Repeat([]byte("line\r\n"), 50000)...)
	header := must(message.ReadHeader(bytes.NewReader(letter), message.HeaderLimits{}))
	public, _, _ := ed25519.GenerateKey(rand.Reader) // the random numbers of the system do not fail
	txt := func(context.Context, string) ([]string, error) {
		return []string{ed25519Key + base64.StdEncoding.EncodeToString(public)}, nil
	}
	synctest.Test(t, func(t *testing.T) {
		for range 1000 {
			results := Verify(t.Context(), Letter{brokenReader{bytes.NewReader(letter), 100_000}, int64(len(letter)), header}, Options{TXT: txt})
			if statuses(results) != "temperror temperror temperror" {
				t.Fatalf("a broken letter: %s", statuses(results))
			}
		}
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		if got := statuses(Verify(cancelled, Letter{bytes.NewReader(letter), int64(len(letter)), header}, Options{TXT: txt})); got != "temperror temperror temperror" {
			t.Errorf("a cancelled one: %s", got)
		}
	})
}

// TestConcurrent verifies one letter from many goroutines; it is for the race detector.
func TestConcurrent(t *testing.T) {
	letter, record := signed(t, []byte(top+"\r\nHello.\r\n"), library.CanonicalizationRelaxed, library.CanonicalizationSimple)
	header := must(message.ReadHeader(bytes.NewReader(letter), message.HeaderLimits{}))
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			for range 20 {
				results := Verify(t.Context(), Letter{bytes.NewReader(letter), int64(len(letter)), header},
					Options{TXT: func(context.Context, string) ([]string, error) { return []string{record}, nil }})
				if statuses(results) != "pass" {
					t.Error(statuses(results))
				}
			}
		})
	}
	wait.Wait()
}

// TestPrefer shows that the author's signature is verified even behind many others.
func TestPrefer(t *testing.T) {
	letter, record := signed(t, []byte(top+"\r\nHello.\r\n"), library.CanonicalizationRelaxed, library.CanonicalizationSimple)
	others := strings.ReplaceAll(strings.Repeat(forge("s", 1, []byte("Hello.\r\n"), "simple/simple"), 20), "d=evil.example", "d=other.example")
	letter = append([]byte(others), letter...)
	header := must(message.ReadHeader(bytes.NewReader(letter), message.HeaderLimits{}))
	results := Verify(t.Context(), Letter{bytes.NewReader(letter), int64(len(letter)), header}, Options{
		TXT:    func(context.Context, string) ([]string, error) { return []string{record}, nil },
		Prefer: func(domain string) bool { return domain == "evil.example" },
	})
	if last := results[len(results)-1]; last.Status != Pass || last.Domain != "evil.example" {
		t.Errorf("%+v", last)
	}
	if got := statuses(results); strings.Count(got, "fail") != maxSignatures-1 || strings.Count(got, "neutral") != 13 {
		t.Error(got)
	}
}
