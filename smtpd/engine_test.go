package smtpd

import "testing"

func TestDialogues(t *testing.T) {
	for _, file := range []string{"relay.txt", "arguments.txt", "data.txt", "chunks.txt", "tls.txt"} {
		t.Run(file, func(t *testing.T) { dialogue(t, file, nil) })
	}
}
