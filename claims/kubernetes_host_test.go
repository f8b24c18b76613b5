package claims

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOnlyAnAPIServerIsAHost(t *testing.T) {
	for host, fault := range map[string]string{
		"":                               "kubernetes_host is missing",
		"https://":                       "kubernetes_host is not a host, host:port or URL",
		"https://:6443":                  "kubernetes_host is not a host, host:port or URL",
		"https://a b":                    "kubernetes_host is not a host, host:port or URL",
		" https://k8s":                   "kubernetes_host is not a host, host:port or URL",
		"k8s/path":                       "kubernetes_host is not a host, host:port or URL",
		"/k8s":                           "kubernetes_host is not a host, host:port or URL",
		"ftp://k8s":                      "kubernetes_host is a URL of the scheme ftp, not of https or http",
		"unix:///run/k8s.sock":           "kubernetes_host is not a host, host:port or URL",
		"wss://k8s":                      "kubernetes_host is a URL of the scheme wss, not of https or http",
		"https://k8s?timeout=1s":         "kubernetes_host has a query, which no request would carry",
		"https://k8s/?":                  "kubernetes_host has a query, which no request would carry",
		"k8s:6443?x":                     "kubernetes_host has a query, which no request would carry",
		"https://k8s/path#x":             "kubernetes_host has a fragment, which no request would carry",
		"https://k8s#":                   "kubernetes_host has a fragment, which no request would carry",
		"https://user:hunter2@k8s":       "kubernetes_host is a URL with credentials in it, which errors and logs would show",
		"hunter2@k8s":                    "kubernetes_host is a URL with credentials in it, which errors and logs would show",
		"https://k8s":                    "",
		"HTTPS://K8S.example.com:443/":   "",
		"k8s.example.com:6443":           "",
		"[::1]:6443":                     "",
		"https://rancher/k8s/clusters/c": "",
	} {
		t.Run(host, func(t *testing.T) {
			_, err := NewKubernetes(KubernetesConfig{Host: host})
			if fault == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, fault)
		})
	}
}

func TestTheReviewersTokenStaysWithTheServerItIsFor(t *testing.T) {
	ca, other, third := certificatePEM(selfSigned(t)), certificatePEM(selfSigned(t)), certificatePEM(selfSigned(t))
	const host = "https://k8s.example.com:6443"
	with := func(host, ca string) KubernetesConfig { return KubernetesConfig{Host: host, CACert: ca} }
	local, system := KubernetesConfig{Host: host}, KubernetesConfig{Host: host, DisableLocalCAJWT: true}
	cases := map[string]struct {
		before, after KubernetesConfig
		kept          bool
	}{
		"nothing":                         {with(host, ca), with(host, ca), true},
		"a slash at the end":              {with(host, ca), with(host+"/", ca), true},
		"the case":                        {with(host, ca), with("HTTPS://K8S.Example.com:6443", ca), true},
		"no scheme":                       {with(host, ca), with("k8s.example.com:6443", ca), true},
		"the default port":                {with("https://k8s.example.com", ca), with("k8s.example.com:443", ca), true},
		"an empty port":                   {with("https://k8s.example.com", ca), with("https://k8s.example.com:", ca), true},
		"the default port without TLS":    {with("http://k8s.example.com:80", ""), with("http://k8s.example.com/", ""), true},
		"the form of an IPv6 address":     {with("https://[::1]:6443", ca), with("https://[0:0:0:0:0:0:0:1]:6443/", ca), true},
		"the form of a path":              {with("https://rancher/k8s/clusters/c-1", ca), with("https://RANCHER:443/k8s/clusters/c-1/", ca), true},
		"other fields":                    {with(host, ca), KubernetesConfig{Host: host, CACert: ca, Issuer: "x", DisableLocalCAJWT: true}, true},
		"the form of the CA":              {with(host, ca), with(host, "\n"+strings.ReplaceAll(ca, "\n", "\r\n")+ca), true},
		"the order of CAs":                {with(host, ca+other), with(host, other+ca), true},
		"one more CA":                     {with(host, ca), with(host, other+ca), true},
		"one CA less":                     {with(host, ca+other), with(host, other), true},
		"one CA of two replaced":          {with(host, ca+other), with(host, other+third), true},
		"the pod's CA as it was":          {local, local, true},
		"another host":                    {with(host, ca), with("https://k8s.example.org:6443", ca), false},
		"another port":                    {with(host, ca), with("https://k8s.example.com:6444", ca), false},
		"the other default port":          {with("https://k8s.example.com", ca), with("https://k8s.example.com:80", ca), false},
		"no TLS":                          {with(host, ca), with("http://k8s.example.com:6443", ca), false},
		"another path":                    {with("https://rancher/k8s/clusters/c-1", ca), with("https://rancher/k8s/clusters/c-2", ca), false},
		"the case of a path":              {with("https://rancher/k8s/clusters/c-1", ca), with("https://rancher/k8s/clusters/C-1", ca), false},
		"a host that ends in a dot":       {with(host, ca), with("https://k8s.example.com.:6443", ca), false},
		"a name that Unicode folds":       {with("https://k8s", ca), with("https://\u212a8s", ca), false},
		"no host":                         {with(host, ca), KubernetesConfig{}, false},
		"no host before":                  {KubernetesConfig{}, with(host, ca), false},
		"another CA":                      {with(host, ca), with(host, other), false},
		"the pod's CA for another":        {with(host, ca), local, false},
		"another CA for the pod's":        {local, with(host, ca), false},
		"the system's CAs for the pod's":  {local, system, false},
		"the pod's CA for the system's":   {system, local, false},
		"the system's CAs for another":    {with(host, ca), system, false},
		"a CA that is none for another's": {with(host, ca), with(host, "x"), false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.kept, c.after.KeepsReviewer(&c.before))
		})
	}
}

// A host that is taken has one normal form, which is that of the same server.
func FuzzNormalHost(f *testing.F) {
	for _, host := range []string{"k8s", "HTTPS://K8S:443//", "https://[::1%25eth0]:1/a%2Fb/", "http://1.2.3.4:80", "a:b", "//k8s", "https://k8s?", "https://u@k8s#"} {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, host string) {
		server, err := parseAPIServer(host)
		if err != nil {
			return
		}
		require.Contains(t, []string{"https", "http"}, server.Scheme)
		require.NotEmpty(t, server.Hostname())
		require.Nil(t, server.User)
		require.NotContains(t, server.String(), "?")
		require.NotContains(t, server.String(), "#")
		normal := normalServer(server)
		again, err := parseAPIServer(normal)
		require.NoError(t, err, normal)
		require.Equal(t, normal, normalServer(again))
		if !strings.Contains(server.Hostname(), ":") { // not an IPv6 address
			require.True(t, strings.EqualFold(server.Hostname(), again.Hostname()))
		}
	})
}
