//go:build !linux

package localpg

import "syscall"

// dieWithParent does nothing where the system has no death signal.
func dieWithParent(*syscall.SysProcAttr) {}
