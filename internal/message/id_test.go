package message

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestNewID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ids []string
		for range 1000 {
			id := NewID()
			if version, variant := id[6]>>4, id[8]>>6; version != 7 || variant != 2 {
				t.Fatalf("%x has version %d, variant %d", id[:], version, variant)
			}
			if !id.Time().Equal(time.Now().Truncate(time.Millisecond)) {
				t.Fatalf("Time() = %s, want %s", id.Time(), time.Now())
			}
			ids = append(ids, id.String())
			time.Sleep(300 * time.Nanosecond) // the clock of an id has steps of 245 ns
		}
		if !slices.IsSorted(ids) {
			t.Error("ids made one after the other are not in order")
		}
		if len(slices.Compact(ids)) != 1000 {
			t.Error("ids are not unique")
		}
	})
}

func TestIDText(t *testing.T) {
	id := NewID()
	if s := id.String(); len(s) != 26 || s != strings.ToLower(s) {
		t.Errorf("String() = %q", s)
	}
	if got, err := ParseID(strings.ToUpper(id.String())); err != nil || got != id {
		t.Errorf("ParseID of upper case: %s, %v", got, err)
	}
	data, err := json.Marshal(id)
	if err != nil || string(data) != `"`+id.String()+`"` {
		t.Errorf("JSON %s, %v", data, err)
	}
	var again ID
	if err := json.Unmarshal(data, &again); err != nil || again != id {
		t.Errorf("from JSON: %s, %v", again, err)
	}
	if err := again.UnmarshalText([]byte("x")); err == nil || again != id {
		t.Errorf("from bad text: %s, %v", again, err)
	}
	if id.IsZero() || !(ID{}).IsZero() {
		t.Error("IsZero")
	}
}

func TestParseIDRefuses(t *testing.T) {
	good := NewID().String()
	for name, s := range map[string]string{
		"empty":              "",
		"short":              good[:25],
		"long":               good + "0",
		"beyond the letters": good[:25] + "z",
		"padding":            good[:25] + "=",
		"newline":            good[:25] + "\n",
		"bits after the end": good[:25] + "1",
		"UTF-8":              "ſ" + good[2:],
	} {
		if id, err := ParseID(s); err == nil {
			t.Errorf("%s: ParseID(%q) = %s", name, s, id)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add(NewID().String())
	f.Add("00000000000000000000000000")
	f.Add("vvvvvvvvvvvvvvvvvvvvvvvvvs")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err == nil && id.String() != strings.ToLower(s) {
			t.Errorf("ParseID(%q) = %s", s, id)
		}
	})
}

func BenchmarkNewID(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_ = NewID()
	}
}
