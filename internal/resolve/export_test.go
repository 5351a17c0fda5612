package resolve

// ReadResolvConf is what System does with a file.
var ReadResolvConf = readResolvConf
