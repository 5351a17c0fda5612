//go:build !linux

package e2e

import "testing"

func TestPostfix(t *testing.T) { t.Skip("the network namespaces that it needs are Linux's") }
