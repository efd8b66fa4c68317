"""What tests of several rooms share: samples, servers, checks, commands."""
