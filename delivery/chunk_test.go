package delivery

import (
	"bufio"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
)

// chunkSink is a sink that takes chunks, too, and counts the letters that came whole.
type chunkSink struct {
	sink
	whole int
	last  string
}

func (k *chunkSink) serve(_ *testing.T, c net.Conn) {
	r := bufio.NewReaderSize(c, 64<<10)
	_, _ = io.WriteString(c, "220 here\r\n")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		words := strings.Fields(line)
		switch words[0] {
		case "EHLO":
			_, _ = io.WriteString(c, k.hello(c)+"\r\n")
		case "DATA":
			_, _ = io.WriteString(c, "354 go\r\n")
			if !k.took(wholeDots(r)) {
				return
			}
			_, _ = io.WriteString(c, "250 2.0.0 kept\r\n")
		case "BDAT":
			n, _ := strconv.Atoi(words[1])
			content := make([]byte, n)
			_, err := io.ReadFull(r, content)
			if !k.took(string(content), err == nil && len(words) == 3) {
				return
			}
			_, _ = io.WriteString(c, "250 2.0.0 kept\r\n")
		case "QUIT":
			_, _ = io.WriteString(c, "221 bye\r\n")
			return
		default:
			_, _ = io.WriteString(c, "250 2.0.0 ok\r\n")
		}
	}
}

func (k *chunkSink) took(content string, whole bool) bool {
	if whole {
		k.whole++
		k.last = content
	}
	return whole
}

// wholeDots reads up to the final dot, and tells whether it came.
func wholeDots(r *bufio.Reader) (string, bool) {
	var content strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return content.String(), false
		}
		if line == ".\r\n" {
			return content.String(), true
		}
		content.WriteString(strings.TrimPrefix(line, "."))
	}
}
