package load

import (
	"os"
	"sync"
	"syscall"
	"time"
)

// Raw is the limit of the machine: writers append pieces of that size to one file for a while, and one fdatasync answers all
// that wait. It returns pieces a second.
func Raw(dir string, size, writers int, during time.Duration) (rate float64, err error) {
	f, err := os.CreateTemp(dir, "raw-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	requests := make(chan chan struct{}, writers)
	stop := make(chan struct{})
	var wait sync.WaitGroup
	for range writers {
		wait.Go(func() {
			answer := make(chan struct{}, 1)
			for {
				select {
				case <-stop:
					return
				case requests <- answer:
				}
				select {
				case <-stop:
					return
				case <-answer:
				}
			}
		})
	}
	done, took, err := commitGroups(f, make([]byte, size), requests, during)
	close(stop)
	wait.Wait()
	return float64(done) / took.Seconds(), err
}

// commitGroups is the one that writes.
func commitGroups(f *os.File, piece []byte, requests chan chan struct{}, during time.Duration) (done int, took time.Duration, err error) {
	began := time.Now()
	for time.Since(began) < during {
		group := []chan struct{}{<-requests}
		for len(requests) > 0 {
			group = append(group, <-requests)
		}
		for range group {
			if _, err := f.Write(piece); err != nil {
				return done, time.Since(began), err
			}
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return done, time.Since(began), err
		}
		done += len(group)
		for _, answer := range group {
			answer <- struct{}{}
		}
	}
	return done, time.Since(began), nil
}
