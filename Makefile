# Everything needs the Go toolchain, make and git; the tests also need gcc, for Go's
# race detector, curl, jq, Node.js, npm and Chromium. Run `make help`.

GO ?= go

# What `vault plugin info` and the plugin's -version show, and the name of its file ends
# in: Vault's catalog has a version for each, and a file that it runs must not change.
VERSION ?= $(shell git describe --tags --dirty --match 'v[0-9]*' 2>/dev/null || \
	echo v0.2.0-dev.$$(git rev-list --count HEAD 2>/dev/null || echo 0))
COMMIT  ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

# How programs are built: the same from the same commit, in whatever folder and of whatever
# platform (all of it is a part of what comes out: a program with other flags is another).
LDFLAGS = -s -w -X $(PLUGIN).Version=$(VERSION) -X $(PLUGIN).Commit=$(COMMIT) -X main.version=$(VERSION) -X main.commit=$(COMMIT)
BUILD = -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

# Where build puts the programs, and which it builds.
BIN ?= bin
PROGRAMS ?= ./cmd/vault-plugin-auth-nats ./cmd/nats-callout ./cmd/nsc-import

FUZZTIME ?= 10s

# How long soak breaks a cluster, and the seed of the order in which it does, a new one if
# empty.
SOAK ?= 2m
SEED ?=

# The release that keep-release keeps: a tag.
RELEASE ?= $(shell git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null)

# OpenBao's program, for test-openbao.
BAO ?= bao

# A repository to push the image to, such as ghcr.io/example/vault-plugin-auth-nats.
IMAGE ?=

PLUGIN := github.com/nats-vault/vault-plugin-auth-nats/plugin
SERVERS := vault nats-server kube-apiserver etcd nats vault-terraform external-secrets promtool prometheus

# The modules with tests. A test of one may depend on programs that are built from
# another, which go's test cache does not see: nothing is taken from that cache. Those of
# ENGINE need a Docker engine.
BESIDE := plugin/client plugin/people/difftest cmd/plugin-image
AFTER := plugin/client/e2e plugin/people/e2e
ENGINE := cmd/plugin-image/e2e
MODULES := . $(BESIDE) $(AFTER) $(ENGINE)
IN_MODULES := $(BESIDE:%=test-in-%) $(AFTER:%=test-in-%)

# Tests on real servers wait more than they compute. So four of a package run at a time,
# whatever the number of processors; the packages that take longest come first; and
# other modules' tests run beside those of the first, but for those that hold how soon
# something is renewed. `make lint` vets the code, and nobody debugs these programs.
TEST := $(GO) test -race -vet=off -ldflags=-w -count=1 -timeout 30m -parallel 4
LONGEST := ./plugin/e2e ./plugin/e2e/cluster

.DEFAULT_GOAL := help
.PHONY: help build demo recording dev test test-module $(IN_MODULES) test-openbao test-container soak bench fuzz model lint tools clean-tools devstack keep-release image release-snapshot release release-tools

help: ## show this text
	@echo 'Usage: make TARGET'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo 'The servers come from PATH, from VAULT_BIN, NATS_SERVER_BIN, KUBE_APISERVER_BIN and'
	@echo 'ETCD_BIN, or are built once into your cache folder, which takes minutes.'

build: ## build the plugin, nats-callout and nsc-import into bin/: static, the plugin with its version in its name
	@rm -f $(BIN)/vault-plugin-auth-nats
	CGO_ENABLED=0 $(GO) build $(BUILD) -o $(BIN)/ $(PROGRAMS)
	@mv $(BIN)/vault-plugin-auth-nats $(BIN)/vault-plugin-auth-nats-$(VERSION)
	@ln -s vault-plugin-auth-nats-$(VERSION) $(BIN)/vault-plugin-auth-nats
	@echo 'built $(BIN)/vault-plugin-auth-nats-$(VERSION), which $(BIN)/vault-plugin-auth-nats links to'

image: ## make the OCI image of the plugin below bin/image, push it to IMAGE if that is given, and print its checksums
	@rm -rf $(BIN)/image
	@set -e; for arch in amd64 arm64; do \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build $(BUILD) -o $(BIN)/image/linux_$$arch/ ./cmd/vault-plugin-auth-nats; \
	done
	@programs='$(abspath $(BIN))/image'; (cd cmd/plugin-image && $(GO) run . \
		-version $(VERSION) -revision $(COMMIT) -created "$$(git log -1 --format=%ct)" $(addprefix -push ,$(IMAGE)) \
		-layout $$programs/layout linux/amd64=$$programs/linux_amd64/vault-plugin-auth-nats \
		linux/arm64=$$programs/linux_arm64/vault-plugin-auth-nats) > $(BIN)/image/checksums
	@cat $(BIN)/image/checksums

RELEASE_TOOLS = $(abspath $(BIN))/release-tools

# What goreleaser's templates take, and syft on PATH.
GORELEASER = VERSION='$(VERSION)' LDFLAGS='$(LDFLAGS)' GORELEASER_CURRENT_TAG='$(VERSION)' \
	COMMIT_DATE="$$(TZ=UTC0 git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd)" COMMIT_SECONDS="$$(git log -1 --format=%ct)" \
	PATH="$(RELEASE_TOOLS):$$PATH" $(RELEASE_TOOLS)/goreleaser

release-snapshot: image release-tools ## make all of a release in dist/ but its signature, twice, and compare: of what is committed
	@test -z "$$(git status --porcelain)" || { echo 'commit first: a release is made of a commit'; exit 1; }
	$(GORELEASER) release --snapshot --clean --skip=sign
	@set -e; again="$$(mktemp -d)"; trap 'chmod -R u+w "$$again"; rm -rf "$$again"' EXIT; \
	git clone --quiet . "$$again/clone"; mkdir "$$again/clone/bin"; cp -r $(BIN)/image "$$again/clone/bin/image"; \
	echo '==> once more, in another folder and with nothing cached'; \
	(cd "$$again/clone" && GOCACHE="$$again/cache" $(GORELEASER) release --snapshot --clean --skip=sign,sbom); \
	(cd "$$again/clone/dist" && sha256sum *.tar.gz *.zip) > "$$again/checksums"; \
	(cd dist && sha256sum --quiet --check "$$again/checksums"); \
	echo "==> all $$(wc -l < "$$again/checksums") archives are the same again"

release: image release-tools ## make, sign and publish the release of the tag that is checked out, as the workflow does
	awk -v heading='## $(VERSION:v%=%) - ' '/^## / { on = index($$0, heading) == 1; next } on' CHANGELOG.md > $(BIN)/release-notes.md
	@grep -q . $(BIN)/release-notes.md || { echo 'CHANGELOG.md has nothing below a heading "## $(VERSION:v%=%) - DATE"'; exit 1; }
	$(GORELEASER) release --clean --release-notes $(BIN)/release-notes.md

release-tools: devstack
	@mkdir -p $(RELEASE_TOOLS)
	@set -e; for tool in goreleaser syft; do \
		path="$$(bin/devstack tools $$tool)"; ln -sf "$$path" $(RELEASE_TOOLS)/$$tool; \
	done

demo: devstack ## show the main job on a real Vault and nats-server, from enable to a message
	bin/devstack demo

recording: devstack ## run the demo and draw the part of it that the README shows: docs/demo.svg
	bin/devstack record docs

dev: devstack ## run Vault, nats-server and an OIDC issuer until Ctrl-C, ready to try
	bin/devstack dev

test: devstack ## run all tests, on real servers too
	bin/devstack tools $(SERVERS)
	@$(MAKE) --no-print-directory -j 2 test-module $(BESIDE:%=test-in-%)
	@$(MAKE) --no-print-directory $(AFTER:%=test-in-%)

test-module:
	$(TEST) $(LONGEST) ./...

$(IN_MODULES): test-in-%:
	@echo '==> go test in $*'; cd $* && $(TEST) ./...

test-openbao: devstack ## run the demo and the end-to-end tests on OpenBao: bao on PATH, or BAO=
	@set -e; bao="$$(command -v '$(BAO)')" || { \
		echo "there is no '$(BAO)': install OpenBao (https://openbao.org/docs/install/) so that bao is on PATH, or give BAO=/path/to/bao"; \
		exit 1; \
	}; \
	version="$$("$$bao" version)"; case "$$version" in \
		OpenBao*) echo "==> $$version" ;; \
		*) echo "$$bao is not OpenBao, but $$version"; exit 1 ;; \
	esac; \
	export VAULT_BIN="$$bao"; \
	bin/devstack tools $(SERVERS); \
	bin/devstack demo; \
	$(GO) test -race -count=1 -timeout 30m -tags openbao ./cmd/devstack/... ./plugin/e2e/...; \
	for module in plugin/client/e2e plugin/people/e2e; do \
		(cd $$module && $(GO) test -race -count=1 -timeout 30m -tags openbao ./...); \
	done

test-container: devstack ## have Vault run the plugin's image in a container: needs a Docker engine; OCI_RUNTIME= is runc unless given
	bin/devstack tools vault nats-server
	cd $(ENGINE) && $(GO) test -count=1 -timeout 30m -tags container ./...

soak: devstack ## break a cluster under load for SOAK, which is 2m unless given, and show what came of it
	bin/devstack tools vault nats-server
	$(GO) test -count=1 -v -timeout 0 -run TestNoFaultOfACluster ./plugin/e2e/cluster -soak $(SOAK) $(addprefix -seed ,$(SEED))

fuzz: ## run each fuzz test for FUZZTIME, which is 10s unless given
	@for file in $$(git grep -l '^func Fuzz' -- '*_test.go'); do \
		for name in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\).*/\1/p' $$file); do \
			$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) ./$$(dirname $$file) || exit 1; \
		done; \
	done

model: ## check the model of how a former leader is kept from undoing anything; needs spin
	plugin/delivery/model/check

bench: ## measure the plugin side by side with its peers, in about an hour, into bench-out/
	$(GO) run ./cmd/bench

lint: devstack ## check format, vet, go.mod, lint and the workflows
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
		if [ -n "$$unformatted" ]; then echo "not formatted with gofmt: $$unformatted"; exit 1; fi
	@set -e; linter="$$(bin/devstack tools golangci-lint)"; for module in $(MODULES); do \
		echo "==> go vet, go mod tidy and golangci-lint in $$module"; \
		(cd $$module && $(GO) vet ./... && $(GO) mod tidy -diff && "$$linter" run ./...); \
	done
	@echo '==> actionlint'; actionlint="$$(bin/devstack tools actionlint)" && "$$actionlint" -shellcheck= -pyflakes=

keep-release: ## keep the source of the last release, or RELEASE=, for the tests of upgrades
	testdata/releases/keep '$(RELEASE)' '$(RELEASE)'

tools: devstack ## build the servers and the linters, those that are not there yet
	bin/devstack tools

clean-tools: devstack ## remove the servers and the linters that were built
	bin/devstack clean-tools

# Built as the servers are, so that they share what is compiled of Go's own library.
devstack:
	@[ -x bin/devstack ] || echo 'building bin/devstack, which builds and runs the rest'
	@CGO_ENABLED=0 $(GO) build -trimpath -o bin/devstack ./cmd/devstack
