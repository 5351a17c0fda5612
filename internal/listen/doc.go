// Package listen opens the server's ports: by address, or taken over from systemd by name. It is where the address of a
// client comes from: the kernel, or the PROXY protocol (versions 1 and 2) of a listed proxy, which must then speak it.
package listen
