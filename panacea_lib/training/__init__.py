"""Training methods: thin subclasses of TRL's trainers, and `train(config, out_dir)`."""
