package delivery

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/postroom/postroom/queue"
)

// takeAll is a server that costs as little as possible.
func takeAll(c net.Conn, hello string) {
	r := bufio.NewReaderSize(c, 64<<10)
	_, _ = io.WriteString(c, "220 x\r\n")
	var replies []byte
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return
		}
		switch {
		case bytes.HasPrefix(line, []byte("EHLO")):
			replies = append(replies, hello...)
		case bytes.HasPrefix(line, []byte("DATA")):
			_, _ = c.Write(append(replies, "354 go\r\n"...))
			replies = replies[:0]
			for !bytes.Equal(line, []byte(".\r\n")) && err == nil {
				line, err = r.ReadSlice('\n')
			}
			replies = append(replies, "250 2.0.0 kept\r\n"...)
		case bytes.HasPrefix(line, []byte("BDAT")):
			n, _ := strconv.Atoi(strings.Fields(string(line))[1])
			_, _ = r.Discard(n)
			replies = append(replies, "250 2.0.0 kept\r\n"...)
		default:
			replies = append(replies, "250 2.0.0 ok\r\n"...)
		}
		if r.Buffered() == 0 {
			_, _ = c.Write(replies)
			replies = replies[:0]
		}
	}
}

// BenchmarkDeliver hands letters to a server over a pipe, one connection for all of them.
func BenchmarkDeliver(b *testing.B) {
	for _, size := range []int{2 << 10, 1 << 20} {
		content := strings.Repeat(strings.Repeat("x", 76)+"\r\n", size/78)
		for _, offer := range []string{"PIPELINING", "CHUNKING"} {
			b.Run(strconv.Itoa(size>>10)+"KiB/"+offer, func(b *testing.B) {
				d := New(Options{Hostname: hostname, Resolver: fixed{}, Dial: func(context.Context, netip.Addr, netip.AddrPort) (net.Conn, error) {
					ours, theirs := net.Pipe()
					go takeAll(theirs, "250-x\r\n250-PIPELINING\r\n250 "+offer+"\r\n")
					return ours, nil
				}})
				defer d.Close()
				l, to := letter(b), recipients(b, "ben@remote.example")
				l.Size = int64(len(content))
				b.ReportAllocs()
				b.SetBytes(l.Size)
				for b.Loop() {
					if o := d.Deliver(b.Context(), l, to, opens(content)); o[0].Status != queue.Delivered {
						b.Fatalf("%+v", o)
					}
				}
			})
		}
	}
}
