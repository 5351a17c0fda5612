package config

// Service is one entry of [listen].
type Service struct {
	Name  string
	Addrs []string
}

// Services lists the entries of [listen], in the order of the file.
func (l *Listen) Services() (all []Service) {
	for _, s := range l.services() {
		all = append(all, Service{s.name, s.addrs})
	}
	return all
}

// Quote writes a string as TOML takes it.
func Quote(s string) string { return quote(s) }
