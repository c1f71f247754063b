-- What one euro was worth in each month. The mean is the exact sum divided once, by the days that have a rate.
SELECT
    currency,
    CAST(date_trunc('month', rate_date) AS DATE) AS month,
    count(*) AS days,
    CAST(sum(rate) / count(*) AS DECIMAL(18, 6)) AS mean_rate,
    min(rate) AS lowest_rate,
    max(rate) AS highest_rate,
    max_by(rate, rate_date) AS last_rate
FROM silver.rates
GROUP BY currency, CAST(date_trunc('month', rate_date) AS DATE)
