# Statistics by R on data of its own, as the tests' oracle:
#
#     Rscript tests/analysis/r/fixtures.R
#
# writes fixtures.json beside this file: all data and all results, to 17 digits. Data are rounded when drawn, so that
# what is written is what was computed on. What R calls by a dotted name has an underscore in its place.

suppressPackageStartupMessages({
  library(statmod)
  library(segmented)
  library(coin)
})

# --- JSON, as far as needed here: numbers and text, named lists as objects, the others as arrays ---

json <- function(value) {
  if (is.null(value)) return("null")
  if (inherits(value, "scalar")) return(json_numbers(unclass(value)))
  if (is.list(value)) {
    inner <- vapply(value, json, "")
    if (is.null(names(value))) return(paste0("[\n", paste(inner, collapse = ",\n"), "\n]"))
    return(paste0("{", paste0("\"", names(value), "\": ", inner, collapse = ", "), "}"))
  }
  paste0("[", paste(json_numbers(value), collapse = ", "), "]")
}

json_numbers <- function(value) {
  if (is.character(value)) return(paste0("\"", value, "\""))
  if (is.logical(value) && !all(is.na(value))) return(tolower(as.character(value)))
  ifelse(is.finite(value), sprintf("%.17g", value), "null")
}

# one number or text, not an array of one
one <- function(value) structure(unname(value), class = "scalar")

set.seed(20261121)

# --- correlations ---

correlation <- function(name, x, y, method, exact = NULL) {
  test <- suppressWarnings(cor.test(x, y, method = method, exact = exact))
  interval <- if (is.null(test$conf.int)) c(NA, NA) else test$conf.int
  list(
    name = one(name), method = one(method), exact = one(isTRUE(exact)), x = x, y = y,
    estimate = one(test$estimate), p_value = one(test$p.value), low = one(interval[1]), high = one(interval[2])
  )
}

correlations <- list()
for (n in 4:7) for (slope in c(0, 1)) {
  x <- round(rnorm(n), 6)
  y <- round(slope * x + rnorm(n), 6)
  correlations <- c(correlations, list(correlation(paste0("exact, n = ", n), x, y, "spearman", exact = TRUE)))
}
for (n in c(6, 12, 30)) {
  x <- round(rnorm(n), 1)
  y <- round(x + rnorm(n), 0)
  correlations <- c(correlations, list(correlation(paste0("ties, n = ", n), x, y, "spearman", exact = FALSE)))
}
for (n in c(8, 25, 50)) {
  x <- round(seq(2, 10, length.out = n), 6)
  y <- round(0.9 - 0.05 * x + rnorm(n, sd = 0.1), 6)
  correlations <- c(correlations, list(correlation(paste0("n = ", n), x, y, "pearson")))
}

# --- permutation p-values: b of m at least as extreme (total.nperm = Inf: permutations are not exhausted) ---

permutations <- list()
for (m in c(99, 9999)) {
  b <- if (m == 99) 0:99 else c(0, 1, 5, 249, 499, 9999)
  permutations <- c(permutations, list(
    list(m = one(m), b = b, p_value = permp(b, nperm = m, total.nperm = Inf, method = "approximate"))
  ))
}

# --- t-tests; the interval is the two-sided 95% one, whatever the alternative ---

student <- function(name, kind, x, y, alternative) {
  call <- function(alternative) {
    if (kind == "one-sample") t.test(x, alternative = alternative)
    else t.test(x, y, paired = kind == "paired", var.equal = FALSE, alternative = alternative)
  }
  test <- call(alternative)
  interval <- call("two.sided")$conf.int
  list(
    name = one(name), kind = one(kind), alternative = one(sub(".", "-", alternative, fixed = TRUE)), x = x, y = y,
    t = one(test$statistic), df = one(test$parameter), p_value = one(test$p.value),
    low = one(interval[1]), high = one(interval[2]), stderr = one(test$stderr)
  )
}

students <- list()
for (n in c(5, 64, 500)) {
  x <- round(rnorm(n, mean = 0.1), 6)
  students <- c(students, list(student(paste0("slices, n = ", n), "one-sample", x, NULL, "greater")))
}
for (n in c(2, 5, 20)) {
  seeds <- rnorm(n, sd = 0.01)
  x <- round(0.91 + seeds + rnorm(n, sd = 0.004), 4)
  y <- round(0.90 + seeds + rnorm(n, sd = 0.004), 4)
  for (alternative in c("two.sided", "greater", "less")) {
    students <- c(students, list(student(paste0("n = ", n), "paired", x, y, alternative)))
  }
}
for (n in list(c(2, 2), c(3, 8), c(20, 15))) {
  x <- round(rnorm(n[1], 0.91, 0.01), 4)
  y <- round(rnorm(n[2], 0.90, 0.003), 4)
  for (alternative in c("two.sided", "greater", "less")) {
    students <- c(students, list(student(paste0("n = ", n[1], ", ", n[2]), "welch", x, y, alternative)))
  }
}

# --- Wilcoxon's tests. As scipy does them: zeros dropped; paired without, unpaired with continuity correction where
# approximated. With ties the exact ones are coin's. ---

wilcoxon <- function(name, kind, x, y, alternative, how) {
  paired <- kind == "paired"
  p_value <- switch(how,
    "exact" = wilcox.test(x, y, paired = paired, alternative = alternative, exact = TRUE)$p.value,
    "normal" = wilcox.test(x, y, paired = paired, alternative = alternative, exact = FALSE, correct = !paired)$p.value,
    "exact with ties" = {
      if (paired) {
        test <- wilcoxsign_test(x ~ y, distribution = "exact", zero.method = "Wilcoxon", alternative = alternative)
      } else {
        arms <- data.frame(value = c(x, y), arm = factor(rep(c("x", "y"), c(length(x), length(y)))))
        test <- wilcox_test(value ~ arm, arms, distribution = "exact", alternative = alternative)
      }
      pvalue(test)
    }
  )
  list(
    name = one(name), kind = one(kind), alternative = one(sub(".", "-", alternative, fixed = TRUE)), how = one(how),
    x = x, y = y, p_value = one(as.numeric(p_value))
  )
}

wilcoxons <- list()
for (alternative in c("two.sided", "greater", "less")) {
  for (n in c(6, 9, 20)) {
    x <- round(rnorm(n, 0.5), 6)
    y <- round(rnorm(n), 6)
    wilcoxons <- c(wilcoxons, list(
      wilcoxon(paste0("n = ", n), "paired", x, y, alternative, "exact"),
      wilcoxon(paste0("n = ", n, ", 7"), "unpaired", x, round(rnorm(7), 6), alternative, "exact")
    ))
  }
  # differences in whole numbers, zeros among them: ties, and exact in floating point
  for (n in c(7, 12, 30)) {
    x <- round(rnorm(n, 1, 2))
    y <- round(rnorm(n, 0, 2))
    x[1] <- y[1]
    how <- if (n <= 13) "exact with ties" else "normal"
    wilcoxons <- c(wilcoxons, list(wilcoxon(paste0("ties and a zero, n = ", n), "paired", x, y, alternative, how)))
  }
  # two arms of one size: with ties and two sizes there is more than one two-sided p
  for (n in c(6, 8, 25)) {
    x <- round(rnorm(n, 1, 2))
    y <- round(rnorm(n, 0, 2))
    how <- if (n <= 8) "exact with ties" else "normal"
    wilcoxons <- c(wilcoxons, list(suppressWarnings(
      wilcoxon(paste0("ties, n = ", n, ", ", n), "unpaired", x, y, alternative, how)
    )))
  }
}

# --- many tests ---

adjustments <- lapply(
  list(
    c(0.01, 0.02, 0.03, 0.04),
    c(0.04, 0.001, 0.03, 0.03, 0.9, 1, 0.001),
    c(0.02, NA, 0.01, NA, 0.4),
    0.03,
    round(runif(40)^3, 6)
  ),
  function(p) list(p = p, holm = p.adjust(p, "holm"), bh = p.adjust(p, "BH"))
)

# --- power: seeds for 80%, both tails counted ---

powers <- list()
for (type in c("paired", "two.sample")) for (delta in c(0.002, 0.005, 0.01, 0.02)) for (level in c(0.05, 0.005)) {
  test <- power.t.test(
    delta = delta, sd = 0.008, sig.level = level, power = 0.8, type = type, strict = TRUE, tol = 1e-10
  )
  powers <- c(powers, list(
    list(type = one(type), delta = one(delta), sd = one(0.008), level = one(level), power = one(0.8), n = one(test$n))
  ))
}

# --- falling logistic curves: nls with SSfpl, y = A + (B - A) / (1 + exp((xmid - x) / scal)), x = log10 strength.
# x80 is where the fitted curve is at 80% of A, its upper asymptote. ---

falling <- function(name, levels, seeds, upper, lower, middle, scale, noise) {
  x <- rep(levels, each = seeds)
  y <- round(upper + (lower - upper) / (1 + exp((middle - x) / scale)) + rnorm(length(x), sd = noise), 4)
  # its own search for a start fails on steep curves
  start <- list(A = upper, B = lower, xmid = middle, scal = scale)
  fit <- nls(y ~ SSfpl(x, A, B, xmid, scal), start = start, control = nls.control(tol = 1e-7, maxiter = 500, minFactor = 1e-9))
  coefficients <- coef(fit)
  curve <- function(at) predict(fit, data.frame(x = at)) - 0.8 * coefficients[["A"]]
  list(
    name = one(name), x = x, y = y, seed = rep(seq_len(seeds) - 1, length(levels)),
    A = one(coefficients["A"]), B = one(coefficients["B"]),
    xmid = one(coefficients["xmid"]), scal = one(coefficients["scal"]),
    residual_standard_error = one(sigma(fit)), rss = one(deviance(fit)),
    x80 = one(uniroot(curve, range(x), tol = 1e-13)$root)
  )
}

logistics <- list(
  falling("one seed, 17 levels", seq(2, 10, by = 0.5), 1, 0.99, 0.11, 5, 0.4, 0.004),
  falling("three seeds, 9 levels", seq(2, 10, by = 1), 3, 0.92, 0.10, 6.3, 0.6, 0.010),
  falling("one seed, 25 levels, early", seq(2, 10, length.out = 25), 1, 0.97, 0.10, 3.9, 0.25, 0.006),
  falling("three seeds, 13 levels, slow", seq(0, 6, by = 0.5), 3, 0.80, 0.15, 3.4, 0.8, 0.008)
)

# --- hockey sticks: segmented on a linear model, one break ---

broken <- function(name, levels, seeds, level, break_at, slopes, noise) {
  set.seed(seeds) # segmented leaves another generator behind
  data <- data.frame(x = rep(levels, each = seeds))
  data$y <- round(
    level + slopes[1] * data$x + (slopes[2] - slopes[1]) * pmax(data$x - break_at, 0) + rnorm(nrow(data), sd = noise), 4
  )
  line <- lm(y ~ x, data)
  control <- seg.control(tol = 1e-12, it.max = 200, n.boot = 20, seed = 1)
  fit <- segmented(line, seg.Z = ~x, psi = list(x = mean(levels)), control = control)
  list(
    name = one(name), x = data$x, y = data$y, psi = one(fit$psi[1, "Est."]), psi_se = one(fit$psi[1, "St.Err"]),
    intercept = one(coef(fit)[["(Intercept)"]]), slope_below = one(coef(fit)[["x"]]),
    slope_above = one(coef(fit)[["x"]] + coef(fit)[["U1.x"]]),
    rss = one(sum(residuals(fit)^2)), residual_standard_error = one(summary(fit)$sigma), true_psi = one(break_at)
  )
}

breaks <- list(
  broken("one seed, 17 levels", seq(2, 10, by = 0.5), 1, 0.95, 5.2, c(0, -0.15), 0.010),
  broken("three seeds, 9 levels", seq(2, 10, by = 1), 3, 0.90, 6.4, c(-0.01, -0.20), 0.012),
  broken("five seeds, 7 levels", seq(0, 6, by = 1), 5, 0.80, 2.7, c(0.005, -0.12), 0.015)
)

# --- LOCO-REG's locality test (Equation 7.1): slices of two layers, a row each, element by element ---

filters <- list(matrix(round(rnorm(30 * 9) + rep(c(0, 0, 0, 0, 0.5, 0, 0, 0, 0), each = 30), 6), 30),
                matrix(round(rnorm(12 * 9, sd = 0.1), 6), 12))
locality <- function(nearer, further) {
  scaled <- unlist(lapply(filters, function(slices) {
    s <- rowMeans(slices[, nearer, drop = FALSE]) - rowMeans(slices[, further, drop = FALSE])
    s / sqrt(mean((s - mean(s))^2))
  }))
  test <- t.test(scaled, alternative = "greater")
  list(m = one(test$estimate), t = one(test$statistic), p = one(test$p.value))
}
corners <- c(1, 3, 7, 9)
neighbours <- c(2, 4, 6, 8)
localities <- list(
  layers = lapply(filters, function(slices) as.vector(t(slices))),
  c_n = locality(5, neighbours), n_co = locality(neighbours, corners)
)

packages <- c("statmod", "segmented", "coin")
fixtures <- list(
  made = list(
    r = one(R.version.string), date = one(format(Sys.Date())),
    packages = setNames(lapply(packages, function(name) one(as.character(packageVersion(name)))), packages)
  ),
  cor_test = correlations, permp = permutations, t_test = students, wilcox_test = wilcoxons,
  p_adjust = adjustments, power_t_test = powers, ssfpl = logistics, segmented = breaks,
  locality = localities
)

script <- sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE))
entries <- paste0("\"", names(fixtures), "\": ", vapply(fixtures, json, ""), collapse = ",\n")
writeLines(paste0("{\n", entries, "\n}"), file.path(dirname(script), "fixtures.json"))
