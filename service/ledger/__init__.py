"""The only code that moves money: commands, rules, batches and the committer."""
