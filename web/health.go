package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// checkTime is how long a check may take. One that takes longer is not passed.
const checkTime = 3 * time.Second

// Check is something that must be so for the server to do its work. Run returns nil where it is.
type Check struct {
	Name string
	Run  func(ctx context.Context) error
}

// check is a Check that is under way at most once: one that hangs does not pile up.
type check struct {
	Check
	mu      sync.Mutex    // guards running
	running chan struct{} // closed at the end; nil: none is under way
	err     error         // after running is closed
}

var errBusy = errors.New("still waiting for an answer")

// pass runs the check, or waits for the run that is under way.
func (c *check) pass(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	c.mu.Lock()
	done := c.running
	if done == nil {
		done = make(chan struct{})
		c.running = done
		// The run may outlive the one who asked: whoever asks next waits for the same.
		run, end := context.WithTimeout(context.WithoutCancel(ctx), checkTime)
		go func() {
			defer end()
			err := c.Run(run)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.err, c.running = err, nil
			close(done)
		}()
	}
	c.mu.Unlock()
	select {
	case <-done:
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.err
	case <-ctx.Done():
		return errBusy
	}
}

// Admin is what the port of this machine answers: /metrics, /healthz, /readyz.
type Admin struct {
	Metrics http.Handler
	Checks  []Check
}

// Handler returns the handler of the port.
func (a Admin) Handler() http.Handler {
	checks := make([]*check, len(a.Checks))
	for i, c := range a.Checks {
		checks[i] = &check{Check: c}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", a.Metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, []byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { ready(w, r, checks) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), adminTime)
		defer cancel()
		r = r.WithContext(ctx)
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		mux.ServeHTTP(w, r)
	})
}

// ready runs the checks side by side and lists them.
func ready(w http.ResponseWriter, r *http.Request, checks []*check) {
	errs := make([]error, len(checks))
	var all sync.WaitGroup
	for i, c := range checks {
		all.Go(func() { errs[i] = c.pass(r.Context()) })
	}
	all.Wait()
	status := http.StatusOK
	var b bytes.Buffer
	for i, c := range checks {
		verdict := "ok"
		if errs[i] != nil {
			status, verdict = http.StatusServiceUnavailable, errs[i].Error()
		}
		fmt.Fprintf(&b, "%s: %s\n", c.Name, verdict)
	}
	plain(w, status, b.Bytes())
}

func plain(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that is gone reads nothing
}
