package child

import "syscall"

// dieWithParent makes the process get the signal when the program that started it dies,
// however it dies (prctl(2), PR_SET_PDEATHSIG).
func dieWithParent(attr *syscall.SysProcAttr, sig syscall.Signal) { attr.Pdeathsig = sig }
