"""What puts the judgement into words: the verdict, the ablation, a paragraph for a paper."""
