"""Training and fine-tuning: `samjax train RECIPE`, or `train(CONFIG, folder)`; see ARCHITECTURE.md for the parts."""
