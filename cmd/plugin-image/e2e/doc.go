// Package e2e has Vault run the plugin's image in a container. It is a module of its own, so that what the servers need
// is no dependency of the program that makes the image, and its test has the build tag container: it needs a Docker
// engine, which not every machine has. `make test-container` runs it.
package e2e
