"""Neural processes beside exact Bayes under the prior that they were trained on."""
