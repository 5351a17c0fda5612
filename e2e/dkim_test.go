package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	library "github.com/emersion/go-msgauth/dkim"

	"github.com/postroom/postroom/auth/dkim"
	"github.com/postroom/postroom/internal/message"
	"github.com/postroom/postroom/internal/resolve"
)

// signer is a domain that signs, with a key of each kind.
type signer struct {
	rsa     *rsa.PrivateKey
	ed25519 ed25519.PrivateKey
	keys    map[string]string // name -> record
}

const signingDomain = "signer.example"

func newSigner(t *testing.T) *signer {
	t.Helper()
	s := &signer{keys: map[string]string{}}
	var err error
	if s.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&s.rsa.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	s.keys["rsa._domainkey."+signingDomain] = "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(public)
	edPublic, edPrivate, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s.ed25519 = edPrivate
	s.keys["ed._domainkey."+signingDomain] = "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(edPublic)
	return s
}

func (s *signer) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(s.rsa)})
}

// verify is the verdict of this project on a letter with one signature.
func (s *signer) verify(t *testing.T, letter []byte) dkim.Result {
	t.Helper()
	header, err := message.ReadHeader(bytes.NewReader(letter), message.HeaderLimits{})
	if err != nil {
		t.Fatal(err)
	}
	results := dkim.Verify(t.Context(), dkim.Letter{Content: bytes.NewReader(letter), Size: int64(len(letter)), Header: header},
		dkim.Options{TXT: func(_ context.Context, name string) ([]string, error) {
			if record, ok := s.keys[strings.ToLower(name)]; ok {
				return []string{record}, nil
			}
			return nil, resolve.ErrNotFound
		}})
	if len(results) == 0 {
		return dkim.Result{Status: "none"}
	}
	for _, r := range results {
		if r.Status == dkim.Pass {
			return r
		}
	}
	return results[0]
}

// python is dkimpy, running.
type python struct {
	in  io.WriteCloser
	out *bufio.Reader
}

type pythonRequest struct {
	Do        string            `json:"do"`
	Letter    []byte            `json:"letter"`
	Selector  string            `json:"selector,omitempty"`
	Domain    string            `json:"domain,omitempty"`
	Key       string            `json:"key,omitempty"`
	Canonical string            `json:"canonical,omitempty"`
	Algorithm string            `json:"algorithm,omitempty"`
	Keys      map[string]string `json:"keys,omitempty"`
}

type pythonAnswer struct {
	Letter     []byte `json:"letter"`
	Passes     bool   `json:"passes"`
	Problem    string `json:"problem"`
	Unreadable bool   `json:"unreadable"`
}

// startPython skips the test where Debian's python3-dkim is not there. It is not asked of another python3 in $PATH.
func startPython(t *testing.T) *python {
	t.Helper()
	const interpreter = "/usr/bin/python3"
	if err := exec.CommandContext(t.Context(), interpreter, "-c", "import dkim, nacl").Run(); err != nil {
		t.Skipf("python3-dkim and python3-nacl are not installed for %s: %v", interpreter, err)
	}
	cmd := exec.CommandContext(t.Context(), interpreter, "testdata/second_opinion.py")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait() // killed with the test's context
	})
	return &python{in, bufio.NewReader(out)}
}

func (p *python) ask(t *testing.T, r pythonRequest) (a pythonAnswer) {
	t.Helper()
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	answer, err := p.out.ReadBytes('\n')
	if err != nil || json.Unmarshal(answer, &a) != nil {
		t.Fatalf("python: %q, %v", answer, err)
	}
	return a
}

// unsignedLetters are what is signed: each has something that a canonical form must get right.
func unsignedLetters() map[string]string {
	const top = "From: Ben <ben@signer.example>\r\nTo: anna@example.org\r\nSubject: hello\r\nDate: Thu, 01 Oct 2026 10:00:00 +0000\r\n"
	return map[string]string{
		"plain":         top + "\r\nHello.\r\n",
		"folded":        strings.Replace(top, "hello", "a long\r\n \t  subject \r\n over lines", 1) + "\r\nHello.\r\n",
		"blanks":        strings.Replace(top, "Subject: hello", "SUBJECT:  hello  \t ", 1) + "\r\n  Hello \t  you. \t\r\n\t\r\n x\r\n",
		"empty lines":   top + "\r\n\r\n\r\nHello.\r\n\r\n\r\n\r\n",
		"empty body":    top + "\r\n",
		"only blanks":   top + "\r\n \t \r\n\r\n",
		"8 bit":         strings.Replace(top, "hello", "Grüße", 1) + "\r\nGrüße, 你好.\r\n\xff\xfe\r\n",
		"dots":          top + "\r\n.\r\n..\r\n.Hello\r\n",
		"repeated":      "X-Tag: 1\r\n" + top + "X-Tag: 2\r\nReceived: a\r\nReceived: b\r\n\r\nHello.\r\n",
		"long line":     top + "\r\n" + strings.Repeat("octet ", 3000) + "\r\n",
		"many lines":    top + "\r\n" + strings.Repeat("Hello, this is a line of some length.\r\n", 2000),
		"no final line": top + "\r\nHello",
	}
}

var canonicals = []string{"simple/simple", "simple/relaxed", "relaxed/simple", "relaxed/relaxed"}

// TestSignedByOthers verifies letters that opendkim, dkimpy and go-msgauth signed.
func TestSignedByOthers(t *testing.T) {
	s := newSigner(t)
	check := func(t *testing.T, name string, letter []byte) {
		t.Helper()
		if r := s.verify(t, letter); r.Status != dkim.Pass {
			t.Errorf("%s: %s (%s) of\n%.1500q", name, r.Status, r.Reason, letter)
		}
	}
	t.Run("opendkim", func(t *testing.T) {
		for _, canonical := range canonicals {
			sign := startOpenDKIM(t, s, canonical)
			for name, letter := range unsignedLetters() {
				if name == "empty body" || name == "no final line" {
					continue // miltertest cannot hand them over
				}
				check(t, name+" "+canonical, sign(t, letter))
			}
		}
	})
	t.Run("dkimpy", func(t *testing.T) {
		p := startPython(t)
		for name, letter := range unsignedLetters() {
			for _, canonical := range canonicals {
				for _, r := range []pythonRequest{
					{Algorithm: "rsa-sha256", Selector: "rsa", Key: string(s.pem())},
					{Algorithm: "ed25519-sha256", Selector: "ed", Key: base64.StdEncoding.EncodeToString(s.ed25519.Seed())},
				} {
					r.Do, r.Domain, r.Canonical, r.Letter = "sign", signingDomain, canonical, []byte(letter)
					check(t, name+" "+canonical+" "+r.Algorithm, p.ask(t, r).Letter)
				}
			}
		}
	})
	t.Run("go-msgauth", func(t *testing.T) {
		for name, letter := range unsignedLetters() {
			for _, canonical := range canonicals {
				for selector, key := range map[string]crypto.Signer{"rsa": s.rsa, "ed": s.ed25519} {
					check(t, name+" "+canonical+" "+selector, s.sign(t, []byte(letter), selector, key, canonical))
				}
			}
		}
	})
}

// startOpenDKIM runs opendkim as a signing milter, and returns what hands it a letter.
func startOpenDKIM(t *testing.T, s *signer, canonical string) func(*testing.T, string) []byte {
	t.Helper()
	opendkim, milter := program(t, "opendkim"), program(t, "miltertest")
	dir, err := os.MkdirTemp("", "opendkim-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	key, letterFile, socket := filepath.Join(dir, "key.pem"), filepath.Join(dir, "letter"), "unix:"+filepath.Join(dir, "s")
	if err := os.WriteFile(key, s.pem(), 0o600); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("Mode s\nCanonicalization %s\nDomain %s\nKeyFile %s\nSelector rsa\nSignatureAlgorithm rsa-sha256\nSocket %s\nRequireSafeKeys no\n",
		canonical, signingDomain, key, socket)
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), opendkim, "-f", "-x", filepath.Join(dir, "conf"))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	return func(t *testing.T, letter string) []byte {
		t.Helper()
		if err := os.WriteFile(letterFile, []byte(letter), 0o600); err != nil {
			t.Fatal(err)
		}
		signature, err := exec.CommandContext(t.Context(), milter, "-D", "socket="+socket, "-D", "letter="+letterFile, "-s", "testdata/opendkim.lua").CombinedOutput()
		if err != nil {
			t.Fatalf("miltertest with a letter of %d octets: %v\n%s", len(letter), err, signature)
		}
		return []byte("DKIM-Signature:" + strings.ReplaceAll(strings.ReplaceAll(string(signature), "\r\n", "\n"), "\n", "\r\n") + "\r\n" + letter)
	}
}

// sign signs with go-msgauth, From twice so that no second one can be added.
func (s *signer) sign(t *testing.T, letter []byte, selector string, key crypto.Signer, canonical string) []byte {
	t.Helper()
	header, body, _ := strings.Cut(canonical, "/")
	var signed bytes.Buffer
	err := library.Sign(&signed, bytes.NewReader(letter), &library.SignOptions{
		Domain: signingDomain, Selector: selector, Signer: key,
		HeaderCanonicalization: library.Canonicalization(header), BodyCanonicalization: library.Canonicalization(body),
		HeaderKeys: []string{"From", "From", "To", "Subject", "Date", "X-Tag"}, Expiration: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return signed.Bytes()
}

// TestMutations changes signed letters at random; this project and dkimpy must agree on what still passes.
func TestMutations(t *testing.T) {
	p, s := startPython(t), newSigner(t)
	random := mathrand.New(mathrand.NewPCG(7, 11)) // the same every time, so that a difference can be looked at
	var letters [][]byte
	for _, name := range []string{"plain", "folded", "blanks", "empty lines", "only blanks", "8 bit", "repeated"} {
		for _, canonical := range canonicals {
			letters = append(letters,
				s.sign(t, []byte(unsignedLetters()[name]), "rsa", s.rsa, canonical),
				s.sign(t, []byte(unsignedLetters()[name]), "ed", s.ed25519, canonical))
		}
	}
	const rounds = 1000
	passing, different, unreadable := 0, 0, 0
	for i := 0; i < rounds; i++ {
		mutant, how := mutate(random, letters[i%len(letters)])
		theirs := p.ask(t, pythonRequest{Do: "verify", Letter: mutant, Keys: s.keys})
		if theirs.Unreadable { // dkimpy gives up on a header that is malformed anywhere
			i--
			unreadable++
			continue
		}
		ours := s.verify(t, mutant)
		if ours.Status == dkim.Pass {
			passing++
		}
		if (ours.Status == dkim.Pass) != theirs.Passes {
			different++
			t.Errorf("%s: %s (%s), dkimpy %t %s\n%q", how, ours.Status, ours.Reason, theirs.Passes, theirs.Problem, mutant)
		}
	}
	t.Logf("%d mutations: %d still pass, %d fail, %d differ; %d more have a header that dkimpy does not read", rounds, passing, rounds-passing, different, unreadable)
	if passing < rounds/20 || passing > rounds*19/20 {
		t.Errorf("%d of %d pass: the mutations prove little", passing, rounds)
	}
}

// mutate makes one change that a letter may suffer on its way; line ends stay CR LF, since port 25 takes no others.
func mutate(random *mathrand.Rand, letter []byte) (mutant []byte, how string) {
	lines := strings.SplitAfter(string(letter), "\r\n")
	i := random.IntN(len(lines))
	line := strings.TrimSuffix(lines[i], "\r\n")
	end := lines[i][len(line):]
	at := random.IntN(len(line) + 1)
	switch random.IntN(10) {
	case 0:
		how, line = "octet changed", flip(random, line)
	case 1:
		how, line = "blank added", line[:at]+" "+line[at:]
	case 2:
		how, line = "tab added at the end", line+"\t"
	case 3:
		how, end = "line twice", end+line+end
	case 4:
		how, line, end = "line removed", "", ""
	case 5:
		how, end = "empty line added", end+"\r\n"
	case 6:
		how = "empty lines at the end"
		return append(bytes.Clone(letter), "\r\n\r\n\r\n"...), how
	case 7:
		how = "field before all"
		return append([]byte("X-Other: field\r\n"), letter...), how
	case 8:
		how, line = "case changed", line[:at]+swapCase(line[at:])
	default:
		how, line = "octets removed", line[:at]+line[min(len(line), at+1+random.IntN(3)):]
	}
	lines[i] = line + end
	mutant = []byte(strings.Join(lines, ""))
	if !bytes.HasSuffix(mutant, []byte("\r\n")) { // as on the wire; dkimpy and RFC 6376 section 3.4.3 differ there
		mutant = append(mutant, "\r\n"...)
	}
	return mutant, fmt.Sprintf("%s in line %d at %d", how, i+1, at)
}

func flip(random *mathrand.Rand, line string) string {
	if line == "" {
		return "x"
	}
	b := []byte(line)
	b[random.IntN(len(b))] = byte(' ' + random.IntN(95))
	return string(b)
}

func swapCase(s string) string {
	if upper := strings.ToUpper(s); upper != s {
		return upper
	}
	return strings.ToLower(s)
}
