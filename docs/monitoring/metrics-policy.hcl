path "auth/nats/metrics" {
  capabilities = ["read"]
}
