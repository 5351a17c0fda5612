package auth_test

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math/big"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/internal/resolve/zone"
)

// What one hostile letter may cost. The octets are all that is ever allocated, not what is held at once.
const (
	maxCPU    = 2 * time.Second * raceFactor
	maxOctets = 32 << 20
	maxLooks  = 40
)

func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// TestHostileLetters gives each to Verify alone, without the limits of a server in front: a bounded time, memory and number of
// look-ups, whatever the letter or the DNS does.
func TestHostileLetters(t *testing.T) {
	const from = "From: a@good.example\r\n"
	signature := func(names int, canonical string) string {
		return fmt.Sprintf("DKIM-Signature: v=1; a=ed25519-sha256; c=%s; d=good.example; s=s; bh=%s=; h=From%s; b=%s==\r\n",
			canonical, strings.Repeat("A", 43), strings.Repeat(":\r\n From", names-1), strings.Repeat("A", 86))
	}
	one := signature(1, "relaxed/relaxed")
	withRSA := strings.Replace(one, "ed25519-sha256", "rsa-sha256", 1)
	for _, tc := range []struct {
		name, letter string
		prepare      func(*zone.Zone)
		want         string // the results of the signatures begin with it
	}{
		{"8 MB of empty lines, simple", signature(1, "simple/simple") + from + "\r\n" + strings.Repeat("\r\n", 4<<20), nil, "fail"},
		{"8 MB of empty lines, relaxed", one + from + "\r\n" + strings.Repeat("\r\n", 4<<20), nil, "fail"},
		{"1,900 fields", strings.Repeat("X: y\r\n", 1900) + one + from + "\r\n", nil, "fail"},
		{"16,000 names in h=", signature(16000, "simple/simple") + from + "\r\n", nil, "policy"},
		{"1,000 signatures", strings.Repeat("DKIM-Signature: v=1; a=ed25519-sha256; d=good.example; s=s; bh=AA==; h=From; b=AA==\r\n", 1000) + from + "\r\n", nil, "fail fail fail fail fail fail fail fail neutral"},
		{"50 ARC sets", strings.Repeat("ARC-Seal: i=1; d=good.example\r\nARC-Message-Signature: i=1; d=good.example\r\n", 50) + from + "\r\n", nil, ""},
		{"50 MB, 8 signatures in both forms", strings.Repeat(one+signature(1, "simple/simple"), 4) + from + "\r\n" + strings.Repeat("A line of a large letter.\r\n", 50<<20/27), nil, "fail fail fail fail fail fail fail fail"},
		{"a key of 512 bits", withRSA + from + "\r\n", publish(t, 512), "policy"},
		{"a key of 16,384 bits", withRSA + from + "\r\n", publish(t, 16384), "policy"},
		{"DNS that hangs", one + from + "\r\n", faults(zone.Timeout), "temperror"},
		{"DNS that loops", one + from + "\r\n", faults(zone.CNAMELoop), "temperror"},
		{"DNS that answers another question", one + from + "\r\n", faults(zone.WrongQuestion), "temperror"},
		{"DNS that answers as much as it can", one + from + "\r\n", faults(zone.Huge), "permerror"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				z, _ := world()
				if tc.prepare != nil {
					tc.prepare(z)
				}
				v, e, began := verifier(t, z), honest.envelope(t), time.Now()
				octets := []byte(tc.letter)
				usedBefore, heldBefore := cpu(t), allocated()
				l := letterOf(t, octets)
				verdict := v.Verify(t.Context(), e, l)
				used, held := cpu(t)-usedBefore, allocated()-heldBefore
				if used > maxCPU || held > maxOctets || z.Queries() > maxLooks {
					t.Errorf("%v of CPU, %d octets, %d look-ups; at most %v, %d, %d", used, held, z.Queries(), maxCPU, maxOctets, maxLooks)
				}
				if took := time.Since(began); took > 40*time.Second {
					t.Errorf("took %v", took)
				}
				var results []string
				for _, r := range verdict.DKIM {
					results = append(results, string(r.Status))
				}
				if got := strings.Join(results, " "); !strings.HasPrefix(got, tc.want) || strings.Contains(got, "pass") {
					t.Errorf("the signatures are %.100q, want %q: %s", got, tc.want, verdict)
				}
				t.Logf("%v of CPU, %d KiB, %d look-ups", used, held>>10, z.Queries())
			})
		})
	}
}

// faults makes every name of the sender fail.
func faults(f zone.Fault) func(*zone.Zone) {
	return func(z *zone.Zone) {
		for _, name := range []string{"good.example", "mail.good.example", "_dmarc.good.example", "_dmarc.example", "s._domainkey.good.example", "1.2.0.192.in-addr.arpa"} {
			z.SetFault(name, f)
		}
	}
}

// publish puts an RSA key of that size into the DNS. Its modulus is made up: nobody signs with it.
func publish(t *testing.T, bits int) func(*zone.Zone) {
	t.Helper()
	n := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), uint(bits)), big.NewInt(1))
	der, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: n, E: 65537})
	if err != nil {
		t.Fatal(err)
	}
	return func(z *zone.Zone) {
		z.Remove("s._domainkey.good.example")
		z.AddTXT("s._domainkey.good.example", "v=DKIM1; k=rsa; p="+base64.StdEncoding.EncodeToString(der))
	}
}
