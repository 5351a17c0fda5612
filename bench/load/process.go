package load

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what a tree of processes has used.
type Usage struct {
	CPU     time.Duration
	Written int64 // octets to the disk, those of children that have ended included
	PSS     int64 // octets of memory, shared pages divided among those that share them
}

// ticksPerSecond is the unit of CPU times in /proc: USER_HZ, which is 100 on every Linux.
const ticksPerSecond = 100

// Tree reads what a process and its descendants have used. Without memory it is quick; reading PSS is not.
func Tree(root int, memory bool) (u Usage, err error) {
	children, err := childrenByParent()
	if err != nil {
		return u, err
	}
	todo := []int{root}
	for len(todo) > 0 {
		pid := todo[0]
		todo = append(todo[1:], children[pid]...)
		one, err := process(pid, memory)
		if os.IsNotExist(err) {
			continue // it ended meanwhile
		}
		if err != nil {
			return u, err
		}
		u.CPU += one.CPU
		u.Written += one.Written
		u.PSS += one.PSS
	}
	return u, nil
}

func childrenByParent() (map[int][]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, path := range stats {
		fields, err := statFields(path)
		if err != nil {
			continue // it ended meanwhile
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path))) // the pattern matched digits
		parent, err := strconv.Atoi(fields[1])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		children[parent] = append(children[parent], pid)
	}
	return children, nil
}

// statFields are those of /proc/PID/stat behind the name, which may hold blanks: state, parent, ...
func statFields(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 15 {
		return nil, fmt.Errorf("%s has %d fields", path, len(fields))
	}
	return fields, nil
}

// process reads one. The times and octets of its children that have ended are counted with it.
func process(pid int, memory bool) (u Usage, err error) {
	dir := fmt.Sprintf("/proc/%d", pid)
	fields, err := statFields(dir + "/stat")
	if err != nil {
		return u, err
	}
	for _, i := range []int{11, 12, 13, 14} { // utime, stime, cutime, cstime
		ticks, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return u, err
		}
		u.CPU += time.Duration(ticks) * time.Second / ticksPerSecond
	}
	if u.Written, err = number(dir+"/io", "write_bytes:", 1); err != nil || !memory {
		return u, err
	}
	u.PSS, err = number(dir+"/smaps_rollup", "Pss:", 1024)
	return u, err
}

// number reads a value behind a name.
func number(path, name string, unit int64) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n * unit, err
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}
