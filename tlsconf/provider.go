package tlsconf

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/libdns/cloudflare"
	"github.com/libdns/hetzner"
	"github.com/libdns/route53"
)

// ProviderOptions say who changes the DNS for dns-01.
type ProviderOptions struct {
	Kind    string // rfc2136, cloudflare, route53 or hetzner
	Server  string // of rfc2136: the primary server, host:port
	KeyName string // of rfc2136: the TSIG key, as name or algorithm:name; of route53: the access key id
	Secret  string // of rfc2136: the TSIG secret in base64; else the token, or the secret access key
}

// NewProvider returns who changes the DNS.
func NewProvider(o ProviderOptions) (Provider, error) {
	secret := strings.TrimSpace(o.Secret)
	switch o.Kind {
	case "rfc2136":
		algorithm, name, found := strings.Cut(o.KeyName, ":")
		if !found {
			algorithm, name = "hmac-sha256", o.KeyName
		}
		if _, err := base64.StdEncoding.DecodeString(secret); err != nil {
			return nil, fmt.Errorf("tls: the TSIG secret of %s is not base64: take what stands behind \"secret\" in the key's file", name)
		}
		return &RFC2136{Server: o.Server, KeyName: name, Algorithm: strings.ToLower(algorithm), Secret: secret}, nil
	case "cloudflare":
		return &cloudflare.Provider{APIToken: secret}, nil
	case "route53":
		return &route53.Provider{AccessKeyId: o.KeyName, SecretAccessKey: secret}, nil
	case "hetzner":
		return hetzner.New(secret), nil
	}
	return nil, fmt.Errorf("tls: there is no DNS provider %q", o.Kind)
}
