"""From a profile to finished results: settings written out, notebooks run, cells swept, costs planned."""
