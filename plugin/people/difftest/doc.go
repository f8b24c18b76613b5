// Package difftest holds the logins of people against those of Vault's own JWT method,
// both in this process, on the same requests. It is a module of its own, so that the
// plugin does not depend on that method.
package difftest
