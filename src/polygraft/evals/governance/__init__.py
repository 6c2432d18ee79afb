"""What a model owes its users beyond right answers: even treatment, steadiness under untidy input, the words they agreed on."""
