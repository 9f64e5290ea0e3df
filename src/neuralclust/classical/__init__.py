"""The classical systems that the papers compare with, where scikit-learn and SciPy have none."""
